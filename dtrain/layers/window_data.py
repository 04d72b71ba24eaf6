"""WindowData: warped windows of images, some of objects and some of background, drawn at random.

Source: Caffe's WindowDataLayer, which trains R-CNN.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.data.bad_records import BadRecords
from dtrain.data.decode import decode_image
from dtrain.data.hashing import below, keyed, mix
from dtrain.data.record import Pixels
from dtrain.data.transform_settings import HARMLESS, TransformSettings
from dtrain.data.window_crop import warp
from dtrain.data.window_file import Window, WindowFile
from dtrain.errors import DataError
from dtrain.kernels.array import Plain
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import TWO, Blobs
from dtrain.layers.sample_stream import SampleStream

CHANNELS = 3
TRANSFORMS = ("crop_size", "mean_file", "mean_value", "mirror", "random_seed", "scale")
WHICH, MIRROR = np.arange(2, dtype=np.uint64)  # which of a sample's random numbers is which


@final
class WindowData(DataSource):
    """top[0] (N, 3, crop_size, crop_size) the warped windows, top[1] (N,) their classes, 0 the background.

    The last fg_fraction of every batch of the job are objects; batch_size is per rank. What a window
    lacks, lying beyond the image, is 0. `cache_images` keeps the files' bytes in memory.
    """

    type_name = "WindowData"
    bad_records: BadRecords
    num_tops = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.window_data_param
        self.waited_s = 0.0
        if not param.source:
            raise self.bad_param(("window_data_param", "source"), "the path of a window file", "none")
        if param.batch_size < 1:
            raise self.bad_param(("window_data_param", "batch_size"), "at least 1", param.batch_size)
        if param.crop_mode not in ("warp", "square"):
            raise self.bad_param(("window_data_param", "crop_mode"), '"warp" or "square"', param.crop_mode)
        if not 0 <= param.fg_fraction <= 1:
            raise self.bad_param(("window_data_param", "fg_fraction"), "in [0, 1]", param.fg_fraction)
        self._refuse_other_transforms()
        self.settings = TransformSettings.from_param(
            self.spec.transform_param,
            train=self.is_training,
            seed=self.scope.seed,
            where=f'{self.where("transform_param")}: layer "{self.name}" ({self.spec.type})',
        )
        self.seed = self.settings.seed
        self.crop: int = self.spec.transform_param.crop_size
        if self.crop < 1:
            raise self.bad_param(("transform_param", "crop_size"), "at least 1", self.crop)
        if 2 * param.context_pad >= self.crop:
            raise self.bad_param(
                ("window_data_param", "context_pad"),
                f"less than half of crop_size ({self.crop})",
                param.context_pad,
            )
        self.scale = self.settings.scale * param.scale
        self.mean = self._mean()
        self.windows = WindowFile(param.source, param.root_folder, param.fg_threshold, param.bg_threshold)
        if self.windows.channels != CHANNELS:
            raise self.bad_param(
                ("window_data_param", "source"), f"of images with {CHANNELS} channels", self.windows.channels
            )
        self.batch_size = param.batch_size
        self.num_records, self.source_name = 0, param.source  # every window is drawn anew
        self.bad_records = BadRecords(self.scope.bad_records)
        self.cache: dict[str, bytes] = {}
        self.stream = SampleStream(self.scope, 1, self.batch_size)
        self._check_windows()

    def _refuse_other_transforms(self) -> None:
        """Windows are cut, warped and mirrored here; what else could be asked for would not happen."""
        for field, value in self.spec.transform_param.ListFields():
            if field.name not in (*TRANSFORMS, *HARMLESS) and value != field.default_value:
                shown = "one" if field.message_type else value
                raise self.bad_param(
                    ("transform_param", field.name),
                    f"absent, as WindowData takes {', '.join(TRANSFORMS)} alone",
                    shown,
                )

    def _mean(self) -> Plain:
        """The mean of every pixel of the square (3, crop, crop), or (3, 1, 1): the middle of a mean image."""
        image, values = self.settings.mean_image, self.settings.mean_values
        if not image.size:
            if len(values) not in (0, 1, CHANNELS):
                raise self.bad_param(
                    ("transform_param", "mean_value"),
                    f"given once or {CHANNELS} times",
                    f"{len(values)} times",
                )
            return np.broadcast_to(np.array(values or (0.0,), np.float32)[:, None, None], (CHANNELS, 1, 1))
        offset = (image.shape[2] - self.crop) // 2
        middle = image[:, max(offset, 0) : offset + self.crop, max(offset, 0) : offset + self.crop]
        if middle.shape != (CHANNELS, self.crop, self.crop):
            raise self.bad_param(
                ("transform_param", "mean_file"),
                f"an image of {CHANNELS} channels as large as crop_size ({self.crop})",
                image.shape,
            )
        return middle

    def _objects(self, batch: int) -> int:
        """How many of a batch are objects; single precision, as in Caffe, decides where it is close."""
        return int(np.float32(batch) * np.float32(self.spec.window_data_param.fg_fraction))

    def _check_windows(self) -> None:
        batch = self.batch_size if self.stream.is_dealt_by_batch else self.batch_size * self.scope.size
        objects = self._objects(batch)
        for kind, wanted, found in (
            ("objects (overlap at least fg_threshold)", objects, self.windows.foreground),
            ("background (overlap below bg_threshold)", batch - objects, self.windows.background),
        ):
            if wanted and not found:
                raise self.bad_param(
                    ("window_data_param", "source"), f"a file with windows of {kind}", self.windows.name
                )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape((self.batch_size, CHANNELS, self.crop, self.crop))
        top[1].reshape((self.batch_size,))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        begun = time.perf_counter()
        images, labels = top[0].data.plain_overwrite(), top[1].data.plain_overwrite()
        samples = self.stream.next().samples
        dealt = self.stream.is_dealt_by_batch
        rank, size = (0, 1) if dealt else (self.scope.rank, self.scope.size)
        batch = self.batch_size * size
        for k, sample in enumerate(samples):
            is_object = k * size + rank >= batch - self._objects(batch)
            window = self._take(int(sample), is_object, images[k])
            labels[k] = window.label
        self.waited_s += time.perf_counter() - begun

    def _take(self, sample: int, is_object: bool, out: Plain) -> Window:
        """The window of a sample of the job's stream, which is written to `out`, mirrored or not."""
        windows = self.windows.foreground if is_object else self.windows.background
        words = mix(keyed(self.seed, 0x31D0, sample))
        index = below(mix(words ^ WHICH), np.array([len(windows)], np.int64))
        mirror = self.settings.mirror and bool(mix(words ^ MIRROR)[0] >> np.uint64(63))
        # Bad ones are numbered as if the windows of background followed those of objects.
        start = 0 if is_object else len(self.windows.foreground)
        wanted = index + start
        good = self.bad_records.first_good(
            int(wanted[0]),
            len(windows),
            lambda number: self._write(windows[number - start], mirror, out),
            start=start,
        )
        self.bad_records.serve(wanted, np.array([good]), len(windows), start=start)
        return windows[good - start]

    def _write(self, window: Window, mirror: bool, out: Plain) -> None:
        param = self.spec.window_data_param
        part, row, column = warp(
            self._image(window.path),
            window,
            self.crop,
            param.context_pad,
            param.crop_mode == "square",
            mirror,
        )
        inside = np.s_[:, row : row + part.shape[1], column : column + part.shape[2]]
        mean = np.broadcast_to(self.mean, out.shape)
        out.fill(0)
        out[inside] = (part - mean[inside]) * out.dtype.type(self.scale)

    def _image(self, path: str) -> Pixels:
        data = self.cache.get(path)
        if data is None:
            try:
                with open(path, "rb") as file:
                    data = file.read()
            except OSError as error:
                raise DataError(
                    f"{self.windows.name}: must name readable images, got {path}: {error.strerror}"
                ) from error
            if self.spec.window_data_param.cache_images:
                self.cache[path] = data
        return decode_image(data, "colour", path)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""

    def position(self) -> int:
        return self.stream.position()

    def seek(self, samples: int) -> None:
        self.stream.seek(samples)
        given = self.spec.transform_param.random_seed
        self.seed = given if given >= 0 else self.scope.seed

    def close(self) -> None:
        self.cache.clear()
