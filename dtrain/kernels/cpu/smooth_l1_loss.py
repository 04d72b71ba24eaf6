"""Smooth L1: quadratic near zero, linear beyond."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer


@final
class SmoothL1Loss:
    """Sum of outside f(inside (a - b)), divided; f(d) = (sigma d)^2 / 2, or beyond |d| - 1 / (2 sigma^2).

    Beyond is |d| >= 1 / sigma^2. The weights have as many values as a and b, or are None for ones.
    Source: the SmoothL1LossLayer of Fast R-CNN.
    """

    def __init__(self, backend: Backend, sigma: float, shape: Shape, normalizer: Normalizer) -> None:
        self.sigma2 = sigma * sigma
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    @staticmethod
    def _weighted(values: Plain, weights: SyncedArray | None) -> Plain:
        return values if weights is None else values * weights.plain().reshape(values.shape)

    def forward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        inside: SyncedArray | None,
        outside: SyncedArray | None,
        loss: SyncedArray,
    ) -> None:
        d = self._weighted(a.plain() - b.plain().reshape(a.shape), inside)
        size = np.abs(d)
        near = size < 1 / self.sigma2
        losses = np.where(near, self.sigma2 / 2 * d * d, size - 0.5 / self.sigma2)
        total = float(self._weighted(losses, outside).sum(dtype=np.float64))
        self._normalized.tell(total, a.size, loss)

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
        d = self._weighted(a.plain() - b.plain().reshape(a.shape), inside)
        slope = np.where(np.abs(d) < 1 / self.sigma2, self.sigma2 * d, np.sign(d))
        slope = self._weighted(self._weighted(slope, inside), outside) * self._normalized.scale(loss_diff)
        if a_diff is not None:
            a_diff.plain_overwrite()[...] = slope
        if b_diff is not None:
            np.negative(slope.reshape(b.shape), out=b_diff.plain_overwrite())
