"""A copy between two arrays whose elements follow each other at different strides."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

import numpy as np

from dtrain.kernels.cuda.array import Access
from dtrain.kernels.cuda.backend import CudaBackend


def strides_of(shape: Sequence[int]) -> list[int]:
    """In elements, the last axis fastest."""
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


@final
class StridedCopy:
    """Element (i, j, ...) of `extents`: from x_start + i x_strides[0] + ... to the like in y."""

    def __init__(
        self,
        backend: CudaBackend,
        extents: Sequence[int],
        x_strides: Sequence[int],
        y_strides: Sequence[int],
        *,
        x_start: int = 0,
        y_start: int = 0,
    ) -> None:
        self._kernels = backend.kernels("copies.cu")
        self._count = prod(extents)
        self._axes = len(extents)
        self._starts = x_start, y_start
        self._table = backend.constants([*extents, *x_strides, *y_strides] or [0], np.int64)

    def run(self, x: Access, y: Access) -> None:
        """Copy all elements."""
        self._kernels.each("copy_strided", self._count, x, y, self._table, self._axes, *self._starts)
