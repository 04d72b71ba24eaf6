"""Sigmoid: y = 1 / (1 + exp(-x)), computed as (1 + tanh(x / 2)) / 2, which cannot overflow."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class Sigmoid:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, top: SyncedArray) -> None:
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        y = target(top, bottom)
        np.multiply(bottom.plain(), 0.5, out=y)
        np.tanh(y, out=y)
        y *= 0.5
        y += 0.5

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        y = top.plain()
        np.multiply(top_diff.plain(), y * (1 - y), out=target(bottom_diff, top_diff))
