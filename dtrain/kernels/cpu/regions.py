"""Regions of feature maps: (image, x1, y1, x2, y2) in pixels of the input image."""

from __future__ import annotations

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import Plain
from dtrain.kernels.cpu.labels import Index, integers


def images_of(regions: Plain, num_images: int) -> Index:
    """The image of every region; DataError, naming the region, for one that is not in the batch."""
    images = integers(regions[:, 0])
    wrong = np.flatnonzero((images < 0) | (images >= num_images))
    if len(wrong):
        raise DataError(
            f"image index of region {wrong[0]} must be in [0, {num_images}), got {regions[wrong[0], 0]:g}"
        )
    return images


def rounded(values: Plain) -> Plain:
    """To whole numbers, halves away from zero, as C does."""
    return np.copysign(np.floor(np.abs(values) + 0.5), values)


def bins(start: Plain, size: Plain, num: int, extent: int) -> tuple[Index, Index]:
    """First and one past the last position of `num` bins of this size, kept in [0, extent): (regions, num).

    `start` is added before rounding.
    """
    at = np.arange(num + 1, dtype=size.dtype) * size[:, None] + start[:, None]
    first = np.clip(np.floor(at[:, :-1]), 0, extent).astype(np.int64)
    last = np.clip(np.ceil(at[:, 1:]), 0, extent).astype(np.int64)
    return first, last
