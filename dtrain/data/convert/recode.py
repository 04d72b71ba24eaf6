"""What a conversion does to each image: nothing, smaller pixels, another encoding, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dtrain.data.decode import (
    Colour,
    as_planes,
    decode_image,
    encode_pixels_as,
    opencv,
    resize_image,
    short_side_size,
)
from dtrain.data.record import Pixels, Record
from dtrain.errors import DataError


@final
@dataclass(frozen=True, kw_only=True)
class Recode:
    """Size and encoding of what is stored; by default every image stays as it is, to the byte."""

    short_side: int = 0
    """Shrink images whose shorter side is longer than this to it; 0: leave their size."""
    width: int = 0
    height: int = 0
    """Make every image width x height, whatever its form; 0: leave it."""
    quality: int = 95
    """Of JPEGs that are written anew because their size or colour changed."""
    raw: bool = False
    """Store pixels instead of encoded images."""
    colour: Colour = "colour"
    """Of images that are decoded; grey has all of them decoded, and written anew with one channel."""

    def __call__(self, record: Record) -> Record:
        is_grey = self.colour == "grey"
        is_changed = self.short_side or self.width or is_grey
        if not is_changed and (record.encoded is None or not self.raw):
            return record
        if record.pixels is None:
            assert record.encoded is not None
            pixels = decode_image(record.encoded, self.colour, record.where)
        else:
            pixels = _grey(record.pixels, record.where) if is_grey else record.pixels
        height, width = pixels.shape[1:]
        if self.width:
            size = (self.height, self.width)
        elif self.short_side and min(height, width) > self.short_side:
            size = short_side_size(height, width, self.short_side)
        else:
            size = (height, width)
        # images of one size are to be of one kind too, so all are written anew: some of ImageNet's are grey
        if size == (height, width) and record.encoded is not None and not (self.raw or self.width or is_grey):
            return record
        resized = resize_image(pixels, *size)
        if self.raw or record.encoded is None:
            return Record(record.where, record.labels, np.ascontiguousarray(resized))
        return Record(
            record.where, record.labels, encoded=encode_pixels_as("jpg", resized, record.where, self.quality)
        )


def _grey(pixels: Pixels, where: str) -> Pixels:
    """(1, H, W) of blue, green and red; as decoders weigh them."""
    if pixels.shape[0] == 1:
        return pixels
    if pixels.shape[0] != 3:
        raise DataError(f"{where}: pixels must have 1 or 3 channels to become grey, got {pixels.shape[0]}")
    cv2 = opencv()
    return as_planes(cv2.cvtColor(np.ascontiguousarray(pixels.transpose(1, 2, 0)), cv2.COLOR_BGR2GRAY))
