"""Squared differences: sum (a - b)^2 / 2, divided."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer


@final
class EuclideanLoss:
    """Two arrays of one shape -> a number."""

    def __init__(self, backend: Backend, shape: Shape, normalizer: Normalizer) -> None:
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def forward(self, a: SyncedArray, b: SyncedArray, loss: SyncedArray) -> None:
        difference = (a.plain() - b.plain().reshape(a.shape)).reshape(-1)
        self._normalized.tell(float(np.dot(difference, difference)) / 2, a.size, loss)

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        loss_diff: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
    ) -> None:
        """da = scale (a - b), db = -da."""
        slope = a.plain() - b.plain().reshape(a.shape)
        slope *= self._normalized.scale(loss_diff)
        if a_diff is not None:
            a_diff.plain_overwrite()[...] = slope
        if b_diff is not None:
            np.negative(slope.reshape(b.shape), out=b_diff.plain_overwrite())
