"""Sum of squared differences: sum (a - b)^2 / 2."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend


@final
class EuclideanLoss:
    """Two arrays of one shape -> a number."""

    def __init__(self, backend: Backend, shape: Shape) -> None:
        self.implementation = "numpy"

    def forward(self, a: SyncedArray, b: SyncedArray) -> float:
        """The sum, not yet divided."""
        difference = (a.plain() - b.plain().reshape(a.shape)).reshape(-1)
        return float(np.dot(difference, difference)) / 2

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
        scale: float,
    ) -> None:
        """da = scale (a - b), db = -da."""
        slope = a.plain() - b.plain().reshape(a.shape)
        slope *= scale
        if a_diff is not None:
            a_diff.plain_overwrite()[...] = slope
        if b_diff is not None:
            np.negative(slope.reshape(b.shape), out=b_diff.plain_overwrite())
