"""Weighted sum of arrays: y = c0 x0 + c1 x1 + ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Sum:
    """Any number of bottoms of one shape -> top; the top may be the first bottom."""

    def __init__(
        self,
        backend: CudaBackend,
        coefficients: Sequence[float],
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("eltwise.cu")
        self.coefficients = [float(c) for c in coefficients]
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        c, n = self.coefficients, top.size
        if len(bottoms) == 1:
            self._kernels.each("add_scaled", n, read(bottoms[0]), write(top), c[0], 0.0)
            return
        self._kernels.each("add_two", n, read(bottoms[0]), read(bottoms[1]), write(top), c[0], c[1])
        for bottom, factor in zip(bottoms[2:], c[2:], strict=True):
            self._kernels.each("add_scaled", n, read(bottom), update(top), factor, 1.0)
