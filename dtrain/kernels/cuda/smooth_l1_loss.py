"""Smooth L1: quadratic near zero, linear beyond."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import maybe, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class SmoothL1Loss:
    """Sum of outside f(inside (a - b)), divided; f(d) = (sigma d)^2 / 2, or beyond |d| - 1 / (2 sigma^2).

    Beyond is |d| >= 1 / sigma^2. The weights have as many values as a and b, or are None for ones.
    Source: the SmoothL1LossLayer of Fast R-CNN.
    """

    def __init__(self, backend: CudaBackend, sigma: float, shape: Shape, normalizer: Normalizer) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", normalizer)
        self.sigma2 = float(sigma) * float(sigma)
        self.implementation = "cuda"

    def forward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        inside: SyncedArray | None,
        outside: SyncedArray | None,
        loss: SyncedArray,
    ) -> None:
        sides = read(a), read(b), maybe(read, inside), maybe(read, outside)
        self._totals.run("smooth_l1_forward", a.size, loss, *sides, self.sigma2)

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        inside: SyncedArray | None,
        outside: SyncedArray | None,
        loss_diff: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
    ) -> None:
        """da = scale outside inside f'(inside (a - b)), db = -da."""
        weights = maybe(read, inside), maybe(read, outside)
        for own, other, diff in ((a, b, a_diff), (b, a, b_diff)):
            if diff is not None:
                sides = read(own), read(other), *weights, write(diff)
                slope = self._totals.slope(loss_diff)
                self._kernels.each("smooth_l1_backward", a.size, *sides, self.sigma2, *slope)
