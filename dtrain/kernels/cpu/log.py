"""Logarithm: y = outer log(scale x + shift); not a number where that has none."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class Log:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self,
        backend: Backend,
        outer: float,
        scale: float,
        shift: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.outer = outer
        self.scale = scale
        self.shift = shift
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        y = target(top, bottom)
        np.multiply(bottom.plain(), self.scale, out=y)
        y += self.shift
        with np.errstate(divide="ignore", invalid="ignore"):
            np.log(y, out=y)
        y *= self.outer

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        x = self._bottom.values(bottom)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = self.outer * self.scale / (self.scale * x + self.shift)
            np.multiply(top_diff.plain(), slope, out=target(bottom_diff, top_diff))
