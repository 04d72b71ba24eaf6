"""Parametric rectified linear unit: y = max(x, 0) + slope min(x, 0)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class PReLU:
    """bottom (N, C, ...), slope (C,), or () for all channels -> top; top and bottom may be one array."""

    def __init__(self, backend: Backend, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray) -> None:
        self._rows = (bottom.shape[0], bottom.shape[1], -1)
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        x = bottom.plain().reshape(self._rows)
        negative = np.minimum(x, 0) * slope.plain().reshape(1, -1, 1)
        y = target(top, bottom).reshape(self._rows)
        np.maximum(x, 0, out=y)
        y += negative

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        slope: SyncedArray,
        bottom_diff: SyncedArray | None,
        slope_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to `slope_diff`; None is not computed."""
        dy = top_diff.plain().reshape(self._rows)
        x = self._bottom.values(bottom).reshape(self._rows)
        if slope_diff is not None:
            total = (dy * np.minimum(x, 0)).sum(axis=(0, 2))
            diff = slope_diff.plain_mutable().reshape(-1)
            diff += total if diff.size == total.size else total.sum()
        if bottom_diff is not None:
            dx = target(bottom_diff, top_diff).reshape(self._rows)
            np.multiply(dy, np.where(x > 0, dy.dtype.type(1), slope.plain().reshape(1, -1, 1)), out=dx)
