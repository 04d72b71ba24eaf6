"""Binomial normal log likelihood: y = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class BNLL:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        x = bottom.plain()
        np.add(np.log1p(np.exp(-np.abs(x))), np.maximum(x, 0), out=target(top, bottom))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        x = self._bottom.values(bottom)
        slope = 0.5 * np.tanh(0.5 * x) + 0.5
        np.multiply(top_diff.plain(), slope, out=target(bottom_diff, top_diff))
