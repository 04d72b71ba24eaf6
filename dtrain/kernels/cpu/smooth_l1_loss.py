"""Smooth L1: quadratic near zero, linear beyond."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend


@final
class SmoothL1Loss:
    """Sum of outside f(inside (a - b)), f(d) = (sigma d)^2 / 2 near zero and |d| - 1 / (2 sigma^2) beyond.

    Near is |d| < 1 / sigma^2. The weights have as many values as a and b, or are None for ones.
    Source: the SmoothL1LossLayer of Fast R-CNN.
    """

    def __init__(self, backend: Backend, sigma: float, shape: Shape) -> None:
        self.sigma2 = sigma * sigma
        self.implementation = "numpy"

    @staticmethod
    def _weighted(values: Plain, weights: SyncedArray | None) -> Plain:
        return values if weights is None else values * weights.plain().reshape(values.shape)

    def forward(
        self, a: SyncedArray, b: SyncedArray, inside: SyncedArray | None, outside: SyncedArray | None
    ) -> float:
        """The sum, not yet divided."""
        d = self._weighted(a.plain() - b.plain().reshape(a.shape), inside)
        size = np.abs(d)
        near = size < 1 / self.sigma2
        loss = np.where(near, self.sigma2 / 2 * d * d, size - 0.5 / self.sigma2)
        return float(self._weighted(loss, outside).sum(dtype=np.float64))

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        inside: SyncedArray | None,
        outside: SyncedArray | None,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
        scale: float,
    ) -> None:
        """da = scale outside inside f'(inside (a - b)), db = -da."""
        d = self._weighted(a.plain() - b.plain().reshape(a.shape), inside)
        slope = np.where(np.abs(d) < 1 / self.sigma2, self.sigma2 * d, np.sign(d))
        slope = self._weighted(self._weighted(slope, inside), outside) * scale
        if a_diff is not None:
            a_diff.plain_overwrite()[...] = slope
        if b_diff is not None:
            np.negative(slope.reshape(b.shape), out=b_diff.plain_overwrite())
