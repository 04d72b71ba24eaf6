"""Weighted sum of arrays and the rectified linear unit behind it: y = max(c0 x0 + c1 x1 + ..., 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.sum import Sum


@final
class SumReLU:
    """Any number of bottoms of one shape -> top; the top may be the first bottom.

    For a plan that fuses the in-place ReLU layer that follows a sum.
    """

    def __init__(
        self,
        backend: Backend,
        coefficients: Sequence[float],
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
    ) -> None:
        self._sum = Sum(backend, coefficients, bottoms, top)
        self.coefficients = self._sum.coefficients
        self.implementation = "numpy"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self._sum.forward(bottoms, top)
        y = top.plain_mutable()
        np.maximum(y, 0, out=y)

    def backward(
        self,
        top_diffs: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """`top` after forward; its diff is the sum of `top_diffs`, which are several where a Split follows.

        None is not computed; the first bottom's diff may be the first of `top_diffs`.
        """
        total = sum(diff.plain() for diff in top_diffs)
        slope = np.where(top.plain() > 0, total, 0)
        for dx, c in zip(bottom_diffs, self.coefficients, strict=True):
            if dx is not None:
                np.multiply(slope, c, out=dx.plain_overwrite())
