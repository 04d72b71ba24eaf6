"""What is done to any sample: read it from its record, decode it, choose its part, its size and its colours.

What is random is a function of the seed and the sample's global number only, so it is the same on any number
of threads and ranks and after any resume.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from dtrain.data import datum_scan
from dtrain.data.colour_jitter import DRAWS as JITTER_DRAWS
from dtrain.data.datum import check_count, check_shape, decode_datum
from dtrain.data.datum_scan import Messages, scan
from dtrain.data.decode import as_planes, decode_image, opencv
from dtrain.data.geometry import DRAWS as GEOMETRY_DRAWS
from dtrain.data.geometry import MIDDLE, reduction
from dtrain.data.hashing import keyed
from dtrain.data.reader import Columns
from dtrain.data.record import Pixels, Record
from dtrain.data.sample_draws import draw
from dtrain.data.transform_settings import TransformSettings
from dtrain.errors import DataError

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.int64]
Samples = npt.NDArray[Any]
"""What a writer makes of some samples, or of one: numbers of its `dtype`."""
Shape = tuple[int, int, int]
Draws = Sequence[float]

_JITTER = GEOMETRY_DRAWS  # where the numbers of the colours begin, after those of the geometry
_MIDDLE = (MIDDLE,) * (GEOMETRY_DRAWS + JITTER_DRAWS)


@final
@dataclass(frozen=True, slots=True)
class _Name:
    """A record, looked up in its source when an error names it."""

    where: Callable[[int], str]
    n: int

    def __str__(self) -> str:
        return self.where(self.n)


Where: TypeAlias = str | _Name


class SampleWriter(ABC):
    """Writes what becomes of samples into arrays; safe to use from many threads."""

    dtype: np.dtype[Any]
    """Of what is written."""

    def __init__(self, settings: TransformSettings, where: str) -> None:
        self.settings = settings
        self.where = where
        self._key = keyed(settings.seed, 0x7F0A)
        self._kept = threading.local()
        self._mean_values = np.array(settings.mean_values or (0.0,), np.float32)

    @abstractmethod
    def output_shape(self, record: Record) -> tuple[int, ...]:
        """What is written of a sample of this record; raises DataError if it does not fit the settings."""

    @abstractmethod
    def _write(self, pixels: Pixels, sample: int, draws: Draws, out: Samples, where: Where) -> None:
        """out <- what becomes of the image, drawn as that sample's."""

    @abstractmethod
    def _write_messages(self, messages: Messages, samples: Numbers, out: Samples, labels: Floats) -> bool:
        """All in one call; False where that is not offered, with some of out and labels overwritten."""

    @abstractmethod
    def _write_columns(self, columns: Columns, samples: Numbers, out: Samples, where: Where) -> None:
        """Pixels of one shape from where they lie."""

    def image_shape(self, record: Record) -> Shape:
        """(C, h, w) of the image that this record becomes."""
        settings = self.settings
        channels, height, width = self._decoded(record).shape
        if settings.geometry is not None:
            height, width = settings.geometry.size((settings.crop_h, settings.crop_w))
        output = (channels, settings.crop_h or height, settings.crop_w or width)
        self.check((channels, height, width), output, lambda: record.where)
        return output

    def apply(self, record: Record, sample: int, out: Samples) -> None:
        """out <- what becomes of the record, drawn as that sample's."""
        (draws,) = self._draws(np.array([sample]))
        if record.pixels is not None:
            pixels = record.pixels
        else:
            assert record.encoded is not None
            pixels = self._decode(np.frombuffer(record.encoded, np.uint8), draws, record.where)
        self._write(pixels, sample, draws, out, record.where)

    @property
    def keeps_size(self) -> bool:
        """Whether the output is as large as the image, whatever its size."""
        settings = self.settings
        return settings.geometry is None and not settings.crop_h and not settings.mean_image.size

    @property
    def takes_each(self) -> bool:
        """Whether images are handled one by one, even raw ones of one shape."""
        return self.settings.geometry is not None or self.settings.jitter is not None

    def apply_datums(
        self,
        messages: Messages,
        where: Callable[[int], str],
        samples: Numbers,
        out: Samples,
        labels: Floats,
    ) -> None:
        """`apply` for serialised Datum messages: out (N, ...), labels (N,).

        Raw uint8 pixels are read where they lie, all in one call; a part with anything else goes one by one.
        `where(n)` names the n-th message.
        """
        addresses = messages.addresses
        if not self.takes_each and self._write_messages(messages, samples, out, labels):
            return
        table = np.empty((len(addresses), datum_scan.COLUMNS), np.int64)
        scan(addresses, messages.lengths, table)
        labels[:] = table[:, datum_scan.LABEL]
        for n, draws in enumerate(self._draws(samples)):
            name, value = _Name(where, n), messages.bytes_of(n)
            self._write(self._pixels(value, table[n], draws, name), int(samples[n]), draws, out[n], name)

    def apply_columns(
        self, columns: Columns, where: Callable[[int], str], samples: Numbers, out: Samples
    ) -> None:
        """`apply` for records of a column reader: out (N, ...)."""
        if not columns.images:
            self._write_columns(columns, samples, out, _Name(where, 0))
        for n, (image, draws) in enumerate(zip(columns.images, self._draws(samples), strict=False)):
            name = _Name(where, n)
            pixels = image if image.ndim == 3 else self._decode(image, draws, name)
            self._write(pixels, int(samples[n]), draws, out[n], name)

    def _pixels(self, value: npt.NDArray[np.uint8], fields: Numbers, draws: Draws, where: Where) -> Pixels:
        """What `decode_datum` and `_decoded` make of a message, without copying its data."""
        start, size = int(fields[datum_scan.DATA_START]), int(fields[datum_scan.DATA_BYTES])
        if not fields[datum_scan.OK] or size == 0:
            return self._decoded(decode_datum(value.tobytes(), str(where)))
        data = value[start : start + size]
        if fields[datum_scan.ENCODED]:
            return self._decode(data, draws, where)
        channels, height, width = fields[datum_scan.CHANNELS : datum_scan.WIDTH + 1].tolist()
        shape = (channels, height, width)
        check_count("bytes of data", size, shape, check_shape(shape, str(where)), str(where))
        return data.reshape(shape)

    def _decoded(self, record: Record) -> Pixels:
        if record.pixels is not None:
            return record.pixels
        assert record.encoded is not None
        return decode_image(record.encoded, self.settings.colour, record.where)

    def _draws(self, samples: Numbers) -> Sequence[Draws]:
        """Each sample's random numbers in [0, 1); in TEST those that choose the middle."""
        if not self.takes_each or not self.settings.train:
            return [_MIDDLE] * len(samples)
        numbers = np.empty((len(samples), len(_MIDDLE)), np.float64)
        draw(samples, self._key, numbers)
        found: list[list[float]] = numbers.tolist()
        return found

    def _decode(self, data: npt.NDArray[np.uint8], draws: Draws, where: Where) -> Pixels:
        """The image, shrunk already while it is decoded where the sample uses less of it."""
        settings, geometry = self.settings, self.settings.geometry
        if geometry is None or settings.colour == "as stored":
            return decode_image(data, settings.colour, where)
        crop = settings.crop_h, settings.crop_w

        def shrink(height: int, width: int) -> int:
            return reduction(geometry.rectangle((height, width), crop, draws), geometry.size(crop))

        return decode_image(data, settings.colour, where, shrink)

    def _changed(self, pixels: Pixels, draws: Draws, where: Where) -> Pixels:
        """The part of the image that the sample takes, in its size and colours."""
        settings = self.settings
        image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        if settings.geometry is not None:
            crop = settings.crop_h, settings.crop_w
            top, left, height, width = settings.geometry.rectangle(image.shape[:2], crop, draws)
            size = settings.geometry.size(crop)
            part = image[top : top + height, left : left + width]
            way = settings.interpolation[size[0] * size[1] > height * width]
            resized = None
            if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] > 1:
                resized = self._scratch("resized", (*size, image.shape[2]))
            image = opencv().resize(part, (size[1], size[0]), resized, interpolation=way)
        if settings.jitter is not None:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(
                    f"{self.where}: distort_param must be absent unless images have 3 channels of 8 bits, "
                    f"got {pixels.shape[0]} of {pixels.dtype} in {where}; set force_color"
                )
            image = settings.jitter(image, draws[_JITTER:])
        return as_planes(image)

    def _scratch(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """The thread's own memory for one step of an image: fresh memory costs as much as the step itself."""
        kept: dict[str, npt.NDArray[np.uint8]] = self._kept.__dict__
        if name not in kept or kept[name].shape != shape:
            kept[name] = np.empty(shape, np.uint8)
        return kept[name]

    def means(self, channels: int) -> Floats:
        """The value that is subtracted from each channel, where there is no mean image."""
        values = self._mean_values
        return np.repeat(values, channels) if len(values) == 1 else values

    def check(self, shape: Shape, out_shape: tuple[int, ...], where: Callable[[], str]) -> None:
        """Raise unless an image of that shape gives an output of that shape under these settings."""
        settings = self.settings
        channels, height, width = shape
        if settings.crop_h > height or settings.crop_w > width:
            raise DataError(
                f"{self.where}: crop must be at most the image's height x width, "
                f"got {settings.crop_h} x {settings.crop_w} for {height} x {width} in {where()}; "
                "lower crop_size, or convert the source with larger images"
            )
        if settings.mean_image.size and settings.mean_image.shape != shape:
            raise DataError(
                f"{self.where}: mean_file must have the shape of the images, "
                f"got {_by(settings.mean_image.shape)} for {_by(shape)} in {where()}; "
                "compute the mean of this source with `dtrain convert mean`, "
                "or give mean_value"
            )
        if len(settings.mean_values) not in (0, 1, channels):
            raise DataError(
                f"{self.where}: mean_value must be given once or once a channel, "
                f"got {len(settings.mean_values)} values for {channels} channels in {where()}"
            )
        expected = (channels, settings.crop_h or height, settings.crop_w or width)
        if expected != tuple(out_shape):
            raise DataError(
                f"{self.where}: all images of a source must give the same shape, "
                f"got {_by(expected)} after {_by(out_shape)} in {where()}; "
                "set crop_size, resize when converting, or set force_color or force_gray"
            )


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(extent) for extent in shape)
