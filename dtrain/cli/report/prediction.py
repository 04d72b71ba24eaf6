"""A net's scores of single images, prepared as Caffe's cpp_classification example prepares them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.blob import Blob
from dtrain.data.decode import decode_image, resize_image
from dtrain.data.mean_file import read_mean
from dtrain.errors import ConfigError, DataError
from dtrain.layers.input import Input
from dtrain.net import Net

Scores: TypeAlias = NDArray[np.floating[Any]]


def input_of(net: Net, where: str) -> Blob:
    """The net's one input (N, C, H, W), made to hold one image. ConfigError for other nets."""
    inputs = [blob for step in net.steps if isinstance(step.layer, Input) for blob in step.top]
    if len(inputs) != 1 or len(net.outputs) != 1:
        raise ConfigError(
            f"{where}: a net that classifies must have one input and one output, got {len(inputs)} and "
            f"{len(net.outputs)}; use the deploy prototxt"
        )
    shape = inputs[0].shape
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ConfigError(f"{where}: the input must have shape (N, 1 or 3, H, W), got {shape}")
    inputs[0].reshape((1, *shape[1:]))
    net.reshape()
    return inputs[0]


def channel_means(mean: str, channels: int) -> NDArray[np.float32]:
    """One value a channel: of a mean image their averages, of numbers themselves, one number for all."""
    if Path(mean).exists():
        values = read_mean(mean).mean(axis=(1, 2), dtype=np.float64)
    else:
        try:
            values = np.array([float(word) for word in mean.split(",")])
        except ValueError:
            raise DataError(f"{mean}: MEAN must be an existing file or numbers, got neither") from None
        if values.size == 1:
            values = np.repeat(values, channels)
    if values.size != channels:
        raise ConfigError(f"{mean}: the mean must have {channels} channels, as the input, got {values.size}")
    return np.asarray(values, np.float32)


def read_labels(path: Path) -> list[str]:
    """The lines of a text file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: labels must be readable, got {error.strerror or error}") from error


def predict(net: Net, data: Blob, means: NDArray[np.float32], image: str) -> Scores:
    """The output's values for one image file."""
    _, channels, height, width = data.shape
    try:
        content = Path(image).read_bytes()
    except OSError as error:
        raise DataError(f"{image}: must be a readable image, got {error.strerror or error}") from error
    pixels = decode_image(content, "grey" if channels == 1 else "colour", image)
    resized = resize_image(pixels, height, width)
    np.subtract(resized, means[:, None, None], out=data.data.plain_overwrite()[0])
    net.forward()
    return net.blob(net.outputs[0]).data.plain().reshape(-1)
