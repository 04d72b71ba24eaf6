"""Rectified linear unit that saturates: y = min(max(x, 0), 6)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class ReLU6:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, top: SyncedArray) -> None:
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.clip(bottom.plain(), 0, 6, out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        y = top.plain()
        np.multiply(top_diff.plain(), (y > 0) & (y < 6), out=target(bottom_diff, top_diff))
