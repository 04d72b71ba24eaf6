"""What a conversion does to each image: nothing, smaller pixels, another encoding, or none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from dtrain.data.decode import Colour, decode_image, encode_pixels_as, resize_image, short_side_size
from dtrain.data.record import Record


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
    """Of JPEGs that are written anew because their size changed."""
    raw: bool = False
    """Store pixels instead of encoded images."""
    colour: Colour = "colour"
    """Of images that are decoded."""

    def __call__(self, record: Record) -> Record:
        if record.encoded is None and not (self.short_side or self.width):
            return record
        if not (self.short_side or self.width or self.raw):
            return record
        if record.pixels is None:
            assert record.encoded is not None
            pixels = decode_image(record.encoded, self.colour, record.where)
        else:
            pixels = record.pixels
        height, width = pixels.shape[1:]
        if self.width:
            size = (self.height, self.width)
        elif self.short_side and min(height, width) > self.short_side:
            size = short_side_size(height, width, self.short_side)
        else:
            size = (height, width)
        # images of one size are to be of one kind too, so all are written anew: some of ImageNet's are grey
        if size == (height, width) and record.encoded is not None and not (self.raw or self.width):
            return record
        resized = resize_image(pixels, *size)
        if self.raw or record.encoded is None:
            return Record(record.where, record.labels, np.ascontiguousarray(resized))
        return Record(
            record.where, record.labels, encoded=encode_pixels_as("jpg", resized, record.where, self.quality)
        )
