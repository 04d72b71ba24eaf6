"""Threshold: y = 1 where x > threshold, else 0."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class Threshold:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, threshold: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self.threshold = threshold
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        above = bottom.plain() > self.threshold
        np.copyto(target(top, bottom), above)
