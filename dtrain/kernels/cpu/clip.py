"""Clip: y = max(low, min(x, high))."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class Clip:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self, backend: Backend, low: float, high: float, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self.low = low
        self.high = high
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        np.clip(bottom.plain(), self.low, self.high, out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        x = self._bottom.values(bottom)
        inside = (x >= self.low) & (x <= self.high)
        np.multiply(top_diff.plain(), inside, out=target(bottom_diff, top_diff))
