"""Sum of squares over the last axes: y = coeff sum(x x)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class ReduceSumsq:
    """bottom -> top, whose shape is the bottom's less the axes summed over."""

    def __init__(self, backend: Backend, coeff: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self.coeff = coeff
        self._rows = (top.size, bottom.size // max(top.size, 1))
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x, y = bottom.plain().reshape(self._rows), top.plain_overwrite().reshape(-1)
        np.square(x).sum(axis=1, out=y)
        y *= self.coeff

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain().reshape(-1, 1), bottom_diff.plain_overwrite().reshape(self._rows)
        np.multiply(bottom.plain().reshape(self._rows), 2 * self.coeff * dy, out=dx)
