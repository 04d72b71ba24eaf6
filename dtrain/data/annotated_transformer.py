"""From an image with boxes to what a detector trains on: expand, crop, resize and mirror both alike.

Source: the order of SSD's AnnotatedDataLayer and DataTransformer. Unlike there, an image is not stored as a
JPEG again between the steps. What is random is a function of the seed and the sample's global number only.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, final

import numpy as np
import numpy.typing as npt

from dtrain.data.annotated import AnnotatedRecord
from dtrain.data.annotated_boxes import UNIT, Objects, Window, mirrored
from dtrain.data.annotated_resize import BORDERS, Image, Size
from dtrain.data.annotated_sampling import DRAWS_OF_TRIAL
from dtrain.data.annotated_settings import AnnotatedSettings
from dtrain.data.colour_jitter import DRAWS as JITTER_DRAWS
from dtrain.data.decode import decode_image, opencv
from dtrain.data.hashing import Words, keyed, mix
from dtrain.data.record import Record
from dtrain.data.transform_kernels import Floats, planar
from dtrain.errors import DataError

Uniform: TypeAlias = npt.NDArray[np.float64]
"""Numbers in [0, 1)."""
Shape: TypeAlias = tuple[int, int, int]

# which of a sample's random numbers is which
_MIRROR, _TOP, _LEFT, _WHETHER, _RATIO, _DOWN, _RIGHT, _WHICH, _INTERPOLATION = range(9)
_JITTER = 9
_NUM = _JITTER + JITTER_DRAWS
_MAX_CHANNELS = 4  # of a border by OpenCV
_SAMPLERS = 1 << 32  # where the numbers of the first sampler begin; those of the next one as far behind them


@final
class Canvas(NamedTuple):
    """A larger image of the mean, and where on it the image lies."""

    height: int
    width: int
    top: int
    left: int


@final
class Cut(NamedTuple):
    """A sample whose pixels need the mean subtracted and nothing else."""

    image: Image
    """(H, W, C), of which the crop of `shape` begins at (top, left)."""
    shape: Shape
    """(C, h, w)"""
    top: int
    left: int
    mirror: bool
    objects: Objects


@final
class AnnotatedTransformer:
    """Safe to use from many threads."""

    def __init__(self, settings: AnnotatedSettings, where: str) -> None:
        self.settings = settings
        self._where = where
        self._key = keyed(settings.image.seed, 0xB0C5)

    def output_shape(self, record: AnnotatedRecord) -> Shape:
        """(C, h, w) of the sample that this record becomes where nothing is drawn."""
        image = self._decoded(record.image)
        size = image.shape[:2]
        if self.settings.resize is not None:
            size = self.settings.resize.output_size(size)
        return self._cropped((*size, image.shape[2]), record.image.where)

    def cut(self, record: AnnotatedRecord, sample: int) -> Cut:
        """The part of the image that the sample takes, with its objects."""
        settings, where = self.settings, record.image.where
        word = mix(np.array([sample], np.uint64) ^ self._key)
        draws = _uniform(word, 0, _NUM)
        image = self._decoded(record.image)
        canvas, window = self._expanded(image.shape[:2], draws)
        objects = record.objects if window == UNIT else record.objects.inside(window, settings.emit)
        window = self._sampled(objects, word, float(draws[_WHICH]))
        if window != UNIT:
            objects = objects.inside(window, settings.emit)
        image = self._part(image, canvas, window, draws[_JITTER:], where)
        size = image.shape[:2]
        if settings.resize is not None:
            if len(settings.resize.pad_values) not in (0, 1, image.shape[2]):
                raise DataError(
                    f"{self._where}: pad_value must be given once or once a channel, got "
                    f"{len(settings.resize.pad_values)} values for {image.shape[2]} channels in {where}"
                )
            image = settings.resize(image, float(draws[_INTERPOLATION]))
            objects = objects.moved(settings.resize.moved(objects.boxes, size))
        return self._last(image, size, objects, draws, where)

    def write(self, cut: Cut, out: Floats) -> None:
        """out (C, h, w) <- the crop of the image, mirrored if it is, less the mean and scaled."""
        settings = self.settings.image
        values = np.array(settings.mean_values or (0.0,), np.float32)
        means = np.repeat(values, cut.shape[0]) if len(values) == 1 else values
        here = np.s_[cut.top : cut.top + cut.shape[1], cut.left : cut.left + cut.shape[2]]
        planes = np.empty(cut.shape, np.uint8)
        opencv().split(cut.image[here], list(planes))
        mean = settings.mean_image
        if mean.size:
            mean = np.ascontiguousarray(mean[:, here[0], here[1]])
        planar(planes, 0, 0, cut.mirror, mean, means, settings.scale, out)

    def _decoded(self, record: Record) -> Image:
        if record.encoded is not None:
            pixels = decode_image(record.encoded, self.settings.image.colour, record.where)
        else:
            assert record.pixels is not None
            pixels = record.pixels
        if pixels.dtype != np.uint8:
            raise DataError(f"{record.where}: image must have 8 bits a channel, got {pixels.dtype}")
        if len(pixels) > _MAX_CHANNELS:
            raise DataError(f"{record.where}: image must have at most 4 channels, got {len(pixels)}")
        image: Image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
        num = len(self.settings.image.mean_values)
        if num not in (0, 1, image.shape[2]):
            raise DataError(
                f"{self._where}: mean_value must be given once or once a channel, got {num} values for "
                f"{image.shape[2]} channels in {record.where}"
            )
        return image

    def _expanded(self, size: Size, draws: Uniform) -> tuple[Canvas, Window]:
        """The canvas of an image of that size, and the canvas as the image's shares."""
        expand, (height, width) = self.settings.expand, size
        if expand is None or draws[_WHETHER] >= expand.probability:
            return Canvas(height, width, 0, 0), UNIT
        ratio = 1 + draws[_RATIO] * (expand.most - 1)
        rows, columns = int(height * ratio), int(width * ratio)
        top, left = int(draws[_DOWN] * (rows - height)), int(draws[_RIGHT] * (columns - width))
        window = (-left / width, -top / height, (columns - left) / width, (rows - top) / height)
        return Canvas(rows, columns, top, left), window

    def _sampled(self, objects: Objects, word: Words, draw: float) -> Window:
        """One of the boxes that the samplers keep; the whole canvas where they keep none."""
        found = [
            sampler(
                objects.boxes,
                _uniform(word, (n + 1) * _SAMPLERS, sampler.max_trials * DRAWS_OF_TRIAL).reshape(
                    -1, DRAWS_OF_TRIAL
                ),
            )
            for n, sampler in enumerate(self.settings.samplers)
        ]
        boxes = np.concatenate(found) if found else np.empty((0, 4))
        if len(boxes) == 0:
            return UNIT
        left, top, right, bottom = np.clip(boxes[int(draw * len(boxes))], 0, 1).tolist()
        return left, top, right, bottom

    def _part(self, image: Image, canvas: Canvas, window: Window, draws: Uniform, where: str) -> Image:
        """The window of the canvas with the image on it, in changed colours; the border keeps the mean's."""
        left, top = int(window[0] * canvas.width), int(window[1] * canvas.height)
        width = max(1, int((window[2] - window[0]) * canvas.width))
        height = max(1, int((window[3] - window[1]) * canvas.height))
        # the rows and columns of the canvas where window and image meet
        rows = max(top, canvas.top), min(top + height, canvas.top + image.shape[0])
        columns = max(left, canvas.left), min(left + width, canvas.left + image.shape[1])
        seen = image[
            max(0, rows[0] - canvas.top) : max(0, rows[1] - canvas.top),
            max(0, columns[0] - canvas.left) : max(0, columns[1] - canvas.left),
        ]
        if self.settings.jitter is not None:
            if image.shape[2] != 3:
                raise DataError(
                    f"{self._where}: distort_param must be absent unless images have 3 channels, "
                    f"got {image.shape[2]} in {where}; set force_color"
                )
            if seen.size:
                seen = self.settings.jitter(np.ascontiguousarray(seen), draws.tolist())
        if seen.shape[:2] == (height, width):
            return np.ascontiguousarray(seen)
        means = np.broadcast_to(self.settings.image.mean_values or (0.0,), (image.shape[2],))
        if not seen.size:
            colour = np.clip(np.rint(means), 0, 255).astype(np.uint8)
            return np.broadcast_to(colour, (height, width, image.shape[2])).copy()
        margins = rows[0] - top, top + height - rows[1], columns[0] - left, left + width - columns[1]
        part: Image = opencv().copyMakeBorder(seen, *margins, BORDERS["CONSTANT"], value=means.tolist())
        return part if part.ndim == 3 else part[:, :, None]

    def _last(self, image: Image, before: Size, objects: Objects, draws: Uniform, where: str) -> Cut:
        """The crop and the mirroring. before: the image's size before it was resized."""
        settings = self.settings
        height, width = image.shape[:2]
        shape = self._cropped((height, width, image.shape[2]), where)
        spare_h, spare_w = height - shape[1], width - shape[2]
        top, left = spare_h // 2, spare_w // 2
        if settings.image.train:
            top, left = int(draws[_TOP] * (spare_h + 1)), int(draws[_LEFT] * (spare_w + 1))
        window = (left / width, top / height, (left + shape[2]) / width, (top + shape[1]) / height)
        objects = objects.inside(window, settings.emit)
        mirror = settings.image.mirror and bool(draws[_MIRROR] >= 0.5)
        boxes = mirrored(objects.boxes) if mirror else objects.boxes
        if settings.resize is not None:
            boxes = settings.resize.told(boxes, before, window)
        return Cut(image, shape, top, left, mirror, objects.moved(boxes))

    def _cropped(self, image: tuple[int, int, int], where: str) -> Shape:
        """(C, h, w) of the crop of an image (H, W, C); raises where the settings do not fit it."""
        settings = self.settings.image
        height, width, channels = image
        if settings.crop_h > height or settings.crop_w > width:
            raise DataError(
                f"{self._where}: crop must be at most the image's height x width, got "
                f"{settings.crop_h} x {settings.crop_w} for {height} x {width} in {where}; lower crop_size, "
                "or set resize_param"
            )
        if settings.mean_image.size and settings.mean_image.shape != (channels, height, width):
            raise DataError(
                f"{self._where}: mean_file must have the shape of the images, got "
                f"{settings.mean_image.shape} for {(channels, height, width)} in {where}; give mean_value"
            )
        return channels, settings.crop_h or height, settings.crop_w or width


def _uniform(word: Words, first: int, num: int) -> Uniform:
    """A sample's random numbers from the first-th on."""
    words = mix(word ^ np.arange(first, first + num, dtype=np.uint64))
    return np.asarray((words >> np.uint64(11)) * 2.0**-53, np.float64)
