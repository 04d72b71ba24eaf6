"""Power: y = (shift + scale x) ^ power; not a number where that has none."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class Power:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self,
        backend: Backend,
        power: float,
        scale: float,
        shift: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.power = power
        self.scale = scale
        self.shift = shift
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        y = target(top, bottom)
        np.multiply(bottom.plain(), self.scale, out=y)
        y += self.shift
        if self.power != 1:
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                np.power(y, self.power, out=y)

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        factor = self.power * self.scale
        dx = target(bottom_diff, top_diff)
        if factor == 0:
            dx.fill(0)
        elif self.power == 1:
            np.multiply(top_diff.plain(), factor, out=dx)
        else:
            base = self.scale * self._bottom.values(bottom) + self.shift
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                np.multiply(top_diff.plain(), factor * np.power(base, self.power - 1), out=dx)
