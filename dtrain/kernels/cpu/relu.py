"""Rectified linear unit: y = max(x, 0) + slope min(x, 0)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class ReLU:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, slope: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self.slope = slope
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x = bottom.plain()
        y = top.plain_mutable() if top is bottom else top.plain_overwrite()
        if self.slope == 0:
            np.maximum(x, 0, out=y)
        else:
            np.copyto(y, np.where(x > 0, x, self.slope * x))

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        """In place the bottom holds the top's values, whose signs are the same while slope >= 0."""
        x, dy = bottom.plain(), top_diff.plain()
        dx = bottom_diff.plain_mutable() if bottom_diff is top_diff else bottom_diff.plain_overwrite()
        np.multiply(dy, np.where(x > 0, 1, self.slope).astype(dy.dtype), out=dx)
