"""Hyperbolic tangent."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class TanH:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, top: SyncedArray) -> None:
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.tanh(bottom.plain(), out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        y = top.plain()
        np.multiply(top_diff.plain(), 1 - y * y, out=target(bottom_diff, top_diff))
