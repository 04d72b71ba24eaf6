"""Images, means and messages to and from arrays; the Transformer.

Source of names and rules: python/caffe/io.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtrain.data.decode import opencv
from dtrain.errors import ConfigError, DataError, unknown_name
from dtrain.proto import blobproto
from dtrain.proto import dtrain_pb2 as caffe_pb2
from dtrain.pycaffe.resampling import LINEAR, resize

Array: TypeAlias = NDArray[Any]

GREY_OF_RGB: Final = np.array([0.2125, 0.7154, 0.0721], np.float32)  # as skimage.color.rgb2gray


# -- messages


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> Array:
    """The values, or the gradient, in the blob's shape; float64. Raises ValueError where they do not fit."""
    try:
        return blobproto.blobproto_to_array(blob, diff=return_diff).astype(np.float64)
    except DataError as error:
        raise ValueError(str(error)) from error


def array_to_blobproto(arr: Array, diff: Array | None = None) -> caffe_pb2.BlobProto:
    """The array, and its gradient if given, as float32."""
    return blobproto.array_to_blobproto(
        np.asarray(arr, np.float32), np.asarray(diff, np.float32) if diff is not None else None
    )


def arraylist_to_blobprotovector_str(arraylist: Sequence[Array]) -> bytes:
    """A serialised BlobProtoVector."""
    return caffe_pb2.BlobProtoVector(
        blobs=[array_to_blobproto(array) for array in arraylist]
    ).SerializeToString()


def blobprotovector_str_to_arraylist(text: bytes) -> list[Array]:
    """The arrays of a serialised BlobProtoVector."""
    return [blobproto_to_array(blob) for blob in caffe_pb2.BlobProtoVector.FromString(text).blobs]


def array_to_datum(arr: Array, label: int | None = None) -> caffe_pb2.Datum:
    """A (C, H, W) array: uint8 as bytes, any other type as floats."""
    if arr.ndim != 3:
        raise ValueError(f"array_to_datum: the array must have 3 axes (C, H, W), got shape {arr.shape}")
    channels, height, width = arr.shape
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(np.float64).ravel().tolist())
    if label is not None:
        datum.label = int(label)
    return datum


def datum_to_array(datum: caffe_pb2.Datum) -> Array:
    """The (C, H, W) values, without the label: uint8, or float64 where the datum holds floats."""
    if datum.encoded:
        raise ValueError("datum_to_array: a datum must hold pixels, got an encoded image; decode datum.data")
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data, np.float64).reshape(shape)


# -- images


def load_image(filename: str | os.PathLike[str], color: bool = True) -> NDArray[np.float32]:
    """(H, W, 3) in the order red, green, blue, or (H, W, 1) grey; values from 0 to 1."""
    path = Path(filename)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DataError(f"{path}: must be a readable image, got {error.strerror}") from error
    cv2 = opencv()
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if image is None:
        raise DataError(f"{path}: must be an image that OpenCV decodes, got {data.size} other bytes")
    pixels: Array = image if image.ndim == 3 else image[:, :, np.newaxis]
    values = pixels.astype(np.float32)
    if np.issubdtype(pixels.dtype, np.integer):
        values /= np.float32(np.iinfo(pixels.dtype).max)
    if values.shape[2] >= 3:
        values = np.ascontiguousarray(values[:, :, 2::-1])
    if color:
        return np.tile(values[:, :, :1], (1, 1, 3)) if values.shape[2] < 3 else values
    return values[:, :, :1] if values.shape[2] < 3 else (values @ GREY_OF_RGB)[:, :, np.newaxis]


def resize_image(im: Array, new_dims: Sequence[int], interp_order: int = LINEAR) -> NDArray[np.float32]:
    """The (H, W, K) image as (new_dims[0], new_dims[1], K); order 0 is nearest, 1 linear, 3 cubic."""
    if im.ndim != 3:
        raise ValueError(f"resize_image: the image must have 3 axes (H, W, K), got shape {im.shape}")
    height, width = int(new_dims[0]), int(new_dims[1])
    return resize(np.asarray(im, np.float32), height, width, interp_order)


def oversample(images: Sequence[Array], crop_dims: Sequence[int]) -> NDArray[np.float32]:
    """Ten crops of each image: the four corners, the centre, and the five mirrored; (10 N, h, w, K)."""
    height, width = (int(extent) for extent in crop_dims)
    full_height, full_width, channels = images[0].shape
    corners = [(top, left) for top in (0, full_height - height) for left in (0, full_width - width)]
    places = [*corners, (int((full_height - height) / 2), int((full_width - width) / 2))]
    if height > full_height or width > full_width:
        raise ValueError(f"oversample: crops must fit into {images[0].shape[:2]}, got {(height, width)}")
    crops = np.empty((10 * len(images), height, width, channels), np.float32)
    for i, image in enumerate(images):
        for j, (top, left) in enumerate(places):
            crop = image[top : top + height, left : left + width]
            crops[10 * i + j] = crop
            crops[10 * i + 5 + j] = crop[:, ::-1]
    return crops


@final
class Transformer:
    """Images (H, W, K) to what a net's inputs take (K, H', W'), and back.

    In this order: resize, transpose, swap channels, times raw_scale, minus mean, times input_scale; each
    where it was set.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        """`inputs`: the shape of each input blob, by name."""
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, tuple[int, ...]] = {}
        self.channel_swap: dict[str, tuple[int, ...]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def _shape(self, in_: str) -> tuple[int, ...]:
        if in_ not in self.inputs:
            raise ConfigError(f"Transformer: {unknown_name('input', in_, self.inputs)}")
        return self.inputs[in_]

    def preprocess(self, in_: str, data: Array) -> NDArray[np.float32]:
        """A new array; `data` stays as it is."""
        extent = self._shape(in_)[2:]
        values = np.array(data, np.float32)
        if values.shape[:2] != extent:
            values = resize_image(values, extent)
        if in_ in self.transpose:
            values = values.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            values = values[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            values = values * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            values = values - self.mean[in_].astype(np.float32)
        if in_ in self.input_scale:
            values = values * np.float32(self.input_scale[in_])
        return values

    def deprocess(self, in_: str, data: Array) -> Array:
        """The way back, without the resizing; axes of extent 1 are dropped first."""
        self._shape(in_)
        values: Array = data.copy().squeeze()
        if in_ in self.input_scale:
            values = values / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            values = values + self.mean[in_].astype(np.float32)
        if in_ in self.raw_scale:
            values = values / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            values = values[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            values = values.transpose(np.argsort(self.transpose[in_]))
        return values

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """(2, 0, 1) makes (K, H, W) of (H, W, K)."""
        axes = len(self._shape(in_)) - 1
        if len(order) != axes:
            raise ConfigError(f"Transformer: transpose must have {axes} axes, got {tuple(order)}")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """(2, 1, 0) makes BGR of RGB; the channels are axis 0 after the transposition."""
        channels = self._shape(in_)[1]
        if len(order) != channels:
            raise ConfigError(f"Transformer: channel_swap must have {channels} channels, got {tuple(order)}")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """255 for a net that was trained on values from 0 to 255."""
        self._shape(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: ArrayLike) -> None:
        """One number a channel, or an image (K, H, W), resized to the input where it has another size."""
        shape = self._shape(in_)[1:]
        values = np.asarray(mean)
        if values.ndim == 1:
            if len(values) != shape[0]:
                raise ValueError(f"Transformer: mean must have {shape[0]} channels, got {len(values)}")
            self.mean[in_] = values[:, np.newaxis, np.newaxis]
            return
        image = values[np.newaxis] if values.ndim == 2 else values
        if image.ndim != 3:
            raise ValueError(f"Transformer: mean must have 1 to 3 axes, got shape {values.shape}")
        if image.shape != shape:
            image = resize_image(image.transpose(1, 2, 0), shape[1:]).transpose(2, 0, 1)
        self.mean[in_] = image

    def set_input_scale(self, in_: str, scale: float) -> None:
        """After the mean, where raw_scale is before it."""
        self._shape(in_)
        self.input_scale[in_] = scale
