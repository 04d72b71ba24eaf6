"""Images of 8 bits for a device that mirrors them, subtracts the mean and scales them itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import numpy.typing as npt

from dtrain.data.datum_scan import Messages, view
from dtrain.data.raw_rows import raw_rows, rows_from_memory
from dtrain.data.reader import Columns
from dtrain.data.record import Pixels, Record
from dtrain.data.sample_draws import place_of
from dtrain.data.sample_writer import Draws, Floats, Numbers, Samples, SampleWriter, Where
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import DataError

HEAD: Final = 4
"""How many int32 precede the pixels: mirrored, top, left, and one that is not used."""
_HEAD_BYTES = 4 * HEAD
_ALIGNMENT_BYTES = 16

Bytes = npt.NDArray[np.uint8]


@final
@dataclass(frozen=True)
class Layout:
    """How an image lies in its row: (h, w, C) if it is interleaved, or else (C, h, w)."""

    channels: int
    height: int
    width: int
    is_interleaved: bool

    @property
    def num_pixels(self) -> int:
        return self.channels * self.height * self.width

    @property
    def row_bytes(self) -> int:
        return _HEAD_BYTES + -(-self.num_pixels // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def layout_of(transformer: Transformer, record: Record) -> Layout:
    """The layout for a source whose images are like this one, in which they are written fastest."""
    channels, height, width = transformer.image_shape(record)
    is_interleaved = channels > 1 and (record.pixels is None or not record.pixels.flags.c_contiguous)
    return Layout(channels, height, width, is_interleaved or (channels > 1 and transformer.takes_each))


def why_not_rows(transformer: Transformer, record: Record, batch_size: int) -> str:
    """What prevents that images like this one are written as pixels; empty if nothing does."""
    if record.pixels is not None and record.pixels.dtype != np.uint8:
        return f"the source holds pixels of {record.pixels.dtype}"
    if transformer.resizes_in_floats(record):
        return "images are resized without rounding to 8 bits"
    if batch_size == 1 and transformer.keeps_size:
        return "a batch of one image has the size of its image"
    return ""


@final
class PixelRows(SampleWriter):
    """Writes rows of bytes: HEAD numbers, the pixels of the crop, and what makes a multiple of 16.

    Draws, crops, sizes and colours are those of a Transformer with the same settings.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, settings: TransformSettings, where: str, layout: Layout) -> None:
        super().__init__(settings, where)
        self.layout = layout
        self._shape = (layout.channels, layout.height, layout.width)

    def output_shape(self, record: Record) -> tuple[int, ...]:
        self.image_shape(record)
        return (self.layout.row_bytes,)

    def _write(self, pixels: Pixels, sample: int, draws: Draws, out: Bytes, where: Where) -> None:
        if self.takes_each:
            pixels = self._changed(pixels, draws, where)
        self.check((pixels.shape[0], pixels.shape[1], pixels.shape[2]), self._shape, lambda: str(where))
        if pixels.dtype != np.uint8:
            raise DataError(
                f"{self.where}: images must have 8 bits a channel as the first one has, got {pixels.dtype} "
                f"in {where}; set use_gpu_transform: false"
            )
        settings, (channels, height, width) = self.settings, self._shape
        spare = pixels.shape[1] - height, pixels.shape[2] - width
        top, left, mirrored = place_of(sample, self._key, settings.train, settings.mirror, *spare)
        _heads(out)[...] = mirrored, top, left, 0
        part = pixels[:, top : top + height, left : left + width]
        to = out[_HEAD_BYTES : _HEAD_BYTES + self.layout.num_pixels]
        if self.layout.is_interleaved:
            to.reshape(height, width, channels)[...] = part.transpose(1, 2, 0)
        else:
            to.reshape(self._shape)[...] = part

    def _write_messages(self, messages: Messages, samples: Numbers, out: Samples, labels: Floats) -> bool:
        settings = self.settings
        if self.layout.is_interleaved or len(settings.mean_values) not in (0, 1, self.layout.channels):
            return False
        return raw_rows(
            messages.addresses,
            messages.lengths,
            samples,
            self._key,
            settings.train,
            settings.mirror,
            settings.crop_h,
            settings.crop_w,
            settings.mean_image,
            self._shape,
            _heads(out),
            _HEAD_BYTES,
            out,
            labels,
        )

    def _write_columns(self, columns: Columns, samples: Numbers, out: Samples, where: Where) -> None:
        settings = self.settings
        channels, height, width = columns.shape
        self.check((channels, height, width), self._shape, lambda: str(where))
        if self.layout.is_interleaved:
            for n, (draws, address) in enumerate(zip(self._draws(samples), columns.addresses, strict=True)):
                pixels = view(address, channels * height * width).reshape(channels, height, width)
                self._write(pixels, int(samples[n]), draws, out[n], where)
            return
        rows_from_memory(
            columns.addresses,
            (channels, height, width),
            samples,
            self._key,
            settings.train,
            settings.mirror,
            self._shape,
            _heads(out),
            _HEAD_BYTES,
            out,
        )


def _heads(out: Bytes) -> npt.NDArray[Any]:
    return out[..., :_HEAD_BYTES].view(np.int32)
