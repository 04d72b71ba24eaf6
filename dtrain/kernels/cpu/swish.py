"""Swish: y = x sigmoid(beta x)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


def _sigmoid(x: Plain) -> Plain:
    y: Plain = 0.5 * np.tanh(0.5 * x) + 0.5
    return y


@final
class Swish:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, beta: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self.beta = beta
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        x = bottom.plain()
        np.multiply(x, _sigmoid(self.beta * x), out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        sigmoid = _sigmoid(self.beta * self._bottom.values(bottom))
        scaled = self.beta * top.plain()
        np.multiply(top_diff.plain(), scaled + sigmoid * (1 - scaled), out=target(bottom_diff, top_diff))
