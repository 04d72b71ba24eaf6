"""Rows of arrays where a selector is not zero."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Filter:
    """selector (N, 1...), bottoms (N, ...) -> tops (rows chosen, ...)."""

    def __init__(self, backend: Backend, selector: SyncedArray) -> None:
        self.rows = np.arange(selector.shape[0])
        self.implementation = "numpy"

    def choose(self, selector: SyncedArray) -> int:
        """Remember the rows whose selector is not zero; returns how many there are."""
        self.rows = np.flatnonzero(selector.plain())
        return int(self.rows.size)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.take(bottom.plain(), self.rows, axis=0, out=top.plain_overwrite(), mode="clip")

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite()
        dx.fill(0)
        dx[self.rows] = top_diff.plain()
