"""Softmax over one axis: y_i = exp(x_i) / sum_j exp(x_j)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Scores


@final
class Softmax:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, axis: int, bottom: SyncedArray, top: SyncedArray) -> None:
        self._scores = Scores(backend, axis)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._scores.softmax(bottom, top)

    def backward(self, top_diff: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray) -> None:
        """dx = (dy - sum(dy * y)) * y."""
        count, channels, inner = self._scores.sizes(top.shape)
        kernels, sides = self._scores.kernels, (read(top_diff), read(top), write(bottom_diff))
        if inner == 1:
            kernels.rows("softmax_backward_rows", count, channels, *sides)
        else:
            kernels.each("softmax_backward_positions", count, *sides, channels, inner)
