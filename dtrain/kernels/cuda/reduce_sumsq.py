"""Sum of squares over the last axes: y = coeff sum(x x)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class ReduceSumsq:
    """bottom -> top, whose shape is the bottom's less the axes summed over."""

    def __init__(self, backend: CudaBackend, coeff: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels = backend.kernels("rows.cu")
        self.coeff = float(coeff)
        self._width = bottom.size // max(top.size, 1)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.rows("reduce_sumsq", top.size, self._width, read(bottom), write(top), self.coeff)

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        args = read(top_diff), read(bottom), write(bottom_diff), self._width, self.coeff
        self._kernels.each("reduce_sumsq_backward", bottom.size, *args)
