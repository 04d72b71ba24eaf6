"""Channels of groups dealt in turn: channel j of group i becomes channel j group + i."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class ShuffleChannel:
    """bottom (N, C, ...) -> top of the same shape; `group` divides C."""

    def __init__(self, backend: Backend, group: int, bottom: SyncedArray, top: SyncedArray) -> None:
        n, c = bottom.shape[:2]
        self._grouped = (n, group, c // group, -1)
        self._dealt = (n, c // group, group, -1)
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        y = top.plain_overwrite().reshape(self._dealt)
        np.copyto(y, bottom.plain().reshape(self._grouped).swapaxes(1, 2))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite().reshape(self._grouped)
        np.copyto(dx, top_diff.plain().reshape(self._dealt).swapaxes(1, 2))
