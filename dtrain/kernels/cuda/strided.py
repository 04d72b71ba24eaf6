"""A copy between two arrays whose elements follow each other at different strides."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import numpy as np

from dtrain.kernels.cuda.array import Access
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType


def strides_of(shape: Sequence[int], form: Form | None = None) -> list[int]:
    """In elements, for each axis: the last is the fastest, but with the channels last axis 1 is."""
    if form is not None and form.channels_last:
        _, channels, height, width = shape
        return [channels * height * width, 1, width * channels, channels]
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


@final
class StridedCopy:
    """Element (i, j, ...) of `extents`: from x_start + i x_strides[0] + ... to the like in y.

    Both arrays are of one type, the backend's unless given.
    """

    def __init__(
        self,
        backend: CudaBackend,
        extents: Sequence[int],
        x_strides: Sequence[int],
        y_strides: Sequence[int],
        *,
        x_start: int = 0,
        y_start: int = 0,
        values: ValueType | None = None,
    ) -> None:
        self._kernels = backend.kernels("copies.cu", values)
        self._count = prod(extents)
        self._axes = len(extents)
        self._starts = x_start, y_start
        axes = sorted(zip(y_strides, extents, x_strides, strict=True), key=lambda axis: -axis[0])
        table = [extent for _, extent, _ in axes] + [x for _, _, x in axes] + [y for y, _, _ in axes]
        self._table = backend.constants(table or [0], np.int64)  # neighbours in a warp write neighbours

    def run(self, x: Access, y: Access) -> None:
        """Copy all elements."""
        self._kernels.each("copy_strided", self._count, x, y, self._table, self._axes, *self._starts)
