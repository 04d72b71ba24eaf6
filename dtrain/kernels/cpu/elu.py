"""Exponential linear unit: y = scale (max(x, 0) + alpha (exp(min(x, 0)) - 1))."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class ELU:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self, backend: Backend, alpha: float, scale: float, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self.alpha = alpha
        self.scale = scale
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        x = bottom.plain()
        negative = self.alpha * np.expm1(np.minimum(x, 0))
        y = target(top, bottom)
        np.maximum(x, 0, out=y)
        y += negative
        if self.scale != 1:
            y *= self.scale

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        x, y = self._bottom.values(bottom), top.plain()
        slope = np.where(x > 0, y.dtype.type(self.scale), y + self.alpha * self.scale)
        np.multiply(top_diff.plain(), slope, out=target(bottom_diff, top_diff))
