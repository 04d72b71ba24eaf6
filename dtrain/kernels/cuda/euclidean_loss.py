"""Squared differences: sum (a - b)^2 / 2, divided."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class EuclideanLoss:
    """Two arrays of one shape -> a number."""

    def __init__(self, backend: CudaBackend, shape: Shape, normalizer: Normalizer) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", normalizer)
        self.implementation = "cuda"

    def forward(self, a: SyncedArray, b: SyncedArray, loss: SyncedArray) -> None:
        self._totals.run("euclidean_forward", a.size, loss, read(a), read(b))

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        loss_diff: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
    ) -> None:
        """da = scale (a - b), db = -da."""
        slope = self._totals.slope(loss_diff)
        for own, other, diff in ((a, b, a_diff), (b, a, b_diff)):
            if diff is not None:
                self._kernels.each("difference", a.size, read(own), read(other), write(diff), *slope)
