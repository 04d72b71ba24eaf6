"""From records to the float32 images of a batch: decode, crop, mirror, subtract the mean, scale.

Source: the semantics of Caffe's DataTransformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from dtrain.data.datum_scan import Messages
from dtrain.data.decode import opencv
from dtrain.data.raw_batch import raw_batch
from dtrain.data.reader import Columns
from dtrain.data.record import Pixels, Record
from dtrain.data.resize_kernels import resized
from dtrain.data.sample_draws import place_of
from dtrain.data.sample_writer import Draws, Numbers, SampleWriter, Shape, Where
from dtrain.data.transform_kernels import Floats, interleaved, planar, planar_from_memory

LINEAR: Final = 1
"""OpenCV's number of the bilinear interpolation."""


@final
class Transformer(SampleWriter):
    """Writes images into float32 arrays (C, h, w)."""

    dtype = np.dtype(np.float32)

    def output_shape(self, record: Record) -> Shape:
        return self.image_shape(record)

    def resizes_in_floats(self, record: Record) -> bool:
        """Whether images like this one are resized and written in one pass, without 8 bits between."""
        channels, *size = self.image_shape(record)
        return channels == 3 and LINEAR in self.settings.interpolation and self._is_one_pass(size)

    def _is_one_pass(self, size: Sequence[int]) -> bool:
        """Whether nothing but resizing is done to colour images on their way to that size."""
        settings = self.settings
        if settings.geometry is None or settings.jitter is not None or settings.mean_image.size:
            return False
        return settings.geometry.size((settings.crop_h, settings.crop_w)) == tuple(size)

    def _write_messages(self, messages: Messages, samples: Numbers, out: Floats, labels: Floats) -> bool:
        settings = self.settings
        return raw_batch(
            messages.addresses,
            messages.lengths,
            samples,
            self._key,
            settings.train,
            settings.mirror,
            settings.crop_h,
            settings.crop_w,
            settings.mean_image,
            self._mean_values,
            settings.scale,
            out,
            labels,
        )

    def _write_columns(self, columns: Columns, samples: Numbers, out: Floats, where: Where) -> None:
        settings = self.settings
        channels, height, width = columns.shape
        self.check((channels, height, width), out.shape[1:], lambda: str(where))
        planar_from_memory(
            columns.addresses,
            (channels, height, width),
            samples,
            self._key,
            settings.train,
            settings.mirror,
            settings.mean_image,
            self.means(channels),
            settings.scale,
            out,
        )

    def _write(self, pixels: Pixels, sample: int, draws: Draws, out: Floats, where: Where) -> None:
        if self.takes_each:
            if self._write_resized(pixels, sample, draws, out, where):
                return
            pixels = self._changed(pixels, draws, where)
        shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
        self.check(shape, out.shape, lambda: str(where))
        settings, spare = self.settings, (shape[1] - out.shape[1], shape[2] - out.shape[2])
        place = place_of(sample, self._key, settings.train, settings.mirror, *spare)
        mean_image, means = settings.mean_image, self.means(shape[0])
        if (
            shape[0] == 3
            and pixels.strides[0] == pixels.itemsize
            and pixels.strides[2] == 3 * pixels.itemsize
        ):
            image = pixels.transpose(1, 2, 0)
            if mean_image.size or pixels.dtype != np.uint8:
                interleaved(image, *place, mean_image, means, self.settings.scale, out)
            else:  # OpenCV takes channels apart in vector code
                planes = self._scratch("planes", out.shape)
                top, left, mirror = place
                part = image[top : top + out.shape[1], left : left + out.shape[2]]
                opencv().split(part, [planes[0], planes[1], planes[2]])
                planar(planes, 0, 0, mirror, mean_image, means, self.settings.scale, out)
        else:
            planes = np.ascontiguousarray(pixels)
            planar(planes, *place, mean_image, means, self.settings.scale, out)

    def _write_resized(self, pixels: Pixels, sample: int, draws: Draws, out: Floats, where: Where) -> bool:
        """Resize and write in one pass; False where that is not offered, and nothing was done."""
        settings = self.settings
        geometry, image = settings.geometry, pixels.transpose(1, 2, 0)
        if (
            geometry is None
            or not self._is_one_pass(out.shape[1:])
            or pixels.dtype != np.uint8
            or pixels.shape[0] != 3
            or not image.flags.c_contiguous
        ):
            return False
        crop, size = (settings.crop_h, settings.crop_w), (image.shape[0], image.shape[1])
        top, left, height, width = geometry.rectangle(size, crop, draws)
        size = geometry.size(crop)
        if settings.interpolation[size[0] * size[1] > height * width] != LINEAR:
            return False
        self.check((3, *size), out.shape, lambda: str(where))
        mirror = place_of(sample, self._key, settings.train, settings.mirror, 0, 0)[2]
        resized(image, top, left, height, width, mirror, self.means(3), settings.scale, out)
        return True
