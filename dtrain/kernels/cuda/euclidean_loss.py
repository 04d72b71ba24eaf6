"""Sum of squared differences: sum (a - b)^2 / 2."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals


@final
class EuclideanLoss:
    """Two arrays of one shape -> a number."""

    def __init__(self, backend: CudaBackend, shape: Shape) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", 2)
        self.implementation = "cuda"

    def forward(self, a: SyncedArray, b: SyncedArray) -> float:
        """The sum, not yet divided."""
        return self._totals.run("euclidean_forward", a.size, read(a), read(b))[0]

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
        scale: float,
    ) -> None:
        """da = scale (a - b), db = -da."""
        if a_diff is not None:
            self._kernels.each("difference", a.size, read(a), read(b), write(a_diff), float(scale))
        if b_diff is not None:
            self._kernels.each("difference", a.size, read(b), read(a), write(b_diff), float(scale))
