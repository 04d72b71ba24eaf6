"""Detector: a classifier of windows of images.

Source of the steps: python/caffe/detector.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias, TypedDict, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtrain.errors import BackendError, ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.pycaffe.classifier import transformer_of
from dtrain.pycaffe.io import load_image, resize_image
from dtrain.pycaffe.net import File, NetFace

Window: TypeAlias = Sequence[float]  # ymin, xmin, ymax, xmax


class Detection(TypedDict):
    """What the net says of one window of one file."""

    filename: str
    window: Window
    prediction: NDArray[np.float32]


@final
class Detector(NetFace):
    """A net with one input, in phase TEST, over windows (ymin, xmin, ymax, xmax) of images.

    context_pad: pixels of the net's input, at each side, that show what surrounds the window; what would lie
    outside of the image is the mean. The others are settings of the Transformer.
    """

    def __init__(
        self,
        model_file: File,
        pretrained_file: File,
        mean: ArrayLike | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        self._read(model_file, int(pb.TEST))
        self.copy_from(pretrained_file)
        self.transformer = transformer_of(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context, and the image that stands for what is outside."""
        channels, height, width = self.blobs[self.inputs[0]].shape[1:]
        if context_pad and (height != width or not 0 < 2 * context_pad < width):
            raise ConfigError(
                f"Detector: context_pad must be less than half the side of a square input, got {context_pad} "
                f"for {height} x {width}"
            )
        self.context_pad = context_pad or 0
        self.crop_dims = np.array((height, width, channels))
        blank = np.zeros((channels, height, width), np.float32)
        self.crop_mean = self._image_of_zeros(blank)

    def _image_of_zeros(self, blank: NDArray[np.float32]) -> NDArray[np.float32]:
        """The image (H, W, K) that the transformer makes zeros of."""
        name = self.inputs[0]
        values = blank + self.transformer.mean.get(name, np.zeros(1, np.float32))
        values = values / np.float32(self.transformer.raw_scale.get(name, 1.0))
        if name in self.transformer.channel_swap:
            values = values[np.argsort(self.transformer.channel_swap[name])]
        return np.asarray(values, np.float32).transpose(1, 2, 0)

    def detect_windows(self, images_windows: Iterable[tuple[str, Iterable[Window]]]) -> list[Detection]:
        """(file name, its windows), ... -> one detection a window."""
        places: list[tuple[str, Window]] = []
        crops = []
        name = self.inputs[0]
        for filename, windows in images_windows:
            image = load_image(filename)
            for window in windows:
                places.append((filename, window))
                crops.append(self.transformer.preprocess(name, self.crop(image, window)))
        if not crops:
            return []
        predictions = self.forward_all(None, **{name: np.stack(crops)})[self.outputs[0]]
        return [
            Detection(filename=filename, window=window, prediction=prediction)
            for (filename, window), prediction in zip(places, predictions, strict=True)
        ]

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[Detection]:
        """Over the windows that selective search proposes; needs its Python package, and MATLAB."""
        try:
            search = importlib.import_module("selective_search_ijcv_with_python")
        except ImportError:
            raise BackendError(
                "detect_selective_search: the package selective_search_ijcv_with_python must be there, got "
                "none; propose windows otherwise and call detect_windows"
            ) from None
        files = [os.path.abspath(name) for name in image_fnames]
        windows = search.get_windows(files, cmd="selective_search_rcnn")
        return self.detect_windows(zip(files, windows, strict=True))

    def crop(self, im: NDArray[Any], window: Window) -> NDArray[np.float32]:
        """The window, or the window in its context at the size of the net's input."""
        top, left, bottom, right = (int(edge) for edge in window)
        if not self.context_pad:
            return np.asarray(im[top:bottom, left:right], np.float32)
        side = int(self.crop_dims[1])
        grow = side / (side - 2.0 * self.context_pad)
        half = np.array([(bottom - top + 1) / 2.0, (right - left + 1) / 2.0])
        centre = np.array([top, left]) + half
        first, last = np.round(centre - grow * half), np.round(centre + grow * half)
        scale = side / (last - first + 1)
        pad = np.round(np.maximum(0, -first) * scale).astype(int)
        extent = np.array(im.shape[:2])
        first, last = np.clip(first, 0, extent), np.clip(last, 0, extent)
        size = np.minimum(np.round((last - first + 1) * scale).astype(int), side - pad)
        (y0, x0), (y1, x1) = first.astype(int), last.astype(int)
        if y1 <= y0 or x1 <= x0 or size.min() < 1:
            raise ConfigError(f"Detector: window must overlap the image {im.shape[:2]}, got {tuple(window)}")
        crop = self.crop_mean.copy()
        crop[pad[0] : pad[0] + size[0], pad[1] : pad[1] + size[1]] = resize_image(
            im[y0:y1, x0:x1], (int(size[0]), int(size[1]))
        )
        return crop
