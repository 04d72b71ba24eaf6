"""Absolute value."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class AbsVal:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, top: SyncedArray) -> None:
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.abs(bottom.plain(), out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        dx = target(bottom_diff, top_diff)
        np.multiply(top_diff.plain(), np.sign(bottom.plain()), out=dx)
