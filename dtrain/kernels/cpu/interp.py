"""Bilinear interpolation that maps corner pixels to corner pixels."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


def weights(extent: int, out: int) -> NDArray[np.float64]:
    """(out, extent): what each input position gives to each output position along one axis."""
    position = np.arange(out) * ((extent - 1) / (out - 1) if out > 1 else 0.0)
    low = np.minimum(position.astype(np.intp), extent - 1)
    high = np.minimum(low + 1, extent - 1)
    share = position - low
    matrix = np.zeros((out, extent))
    rows = np.arange(out)
    matrix[rows, low] = 1 - share
    matrix[rows, high] += share
    return matrix


@final
class Interp:
    """bottom (N, C, H, W), less `crop` rows and columns (before, after) -> top (N, C, H', W').

    Source: DeepLab's InterpLayer.
    """

    def __init__(
        self, backend: Backend, crop: tuple[int, int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        (h, w), (out_h, out_w) = bottom.shape[2:], top.shape[2:]
        before, after = crop
        self._inside = (..., slice(before, h - after), slice(before, w - after))
        self._down = weights(h - before - after, out_h)
        self._across = weights(w - before - after, out_w)
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        y = top.plain_overwrite()
        down, across = self._down.astype(y.dtype), self._across.astype(y.dtype)
        np.matmul(down @ bottom.plain()[self._inside], across.T, out=y)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain(), bottom_diff.plain_overwrite()
        down, across = self._down.astype(dy.dtype), self._across.astype(dy.dtype)
        dx.fill(0)
        dx[self._inside] = down.T @ dy @ across
