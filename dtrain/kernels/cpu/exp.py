"""Exponential: y = outer exp(inner x)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class Exp:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self, backend: Backend, inner: float, outer: float, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self.inner = inner
        self.outer = outer
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        y = target(top, bottom)
        np.multiply(bottom.plain(), self.inner, out=y)
        with np.errstate(over="ignore"):
            np.exp(y, out=y)
            y *= self.outer

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        dx = target(bottom_diff, top_diff)
        with np.errstate(over="ignore", invalid="ignore"):
            np.multiply(top_diff.plain(), top.plain(), out=dx)
            dx *= self.inner
