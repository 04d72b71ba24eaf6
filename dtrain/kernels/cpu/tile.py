"""Tile: an array repeated along one axis."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Tile:
    """bottom -> top with `tiles` times the extent at `axis`."""

    def __init__(
        self, backend: Backend, axis: int, tiles: int, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._rows = (int(np.prod(bottom.shape[:axis])), 1, int(np.prod(bottom.shape[axis:])))
        self._tiled = (self._rows[0], tiles, self._rows[2])
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.copyto(top.plain_overwrite().reshape(self._tiled), bottom.plain().reshape(self._rows))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite().reshape(self._rows)
        top_diff.plain().reshape(self._tiled).sum(axis=1, keepdims=True, out=dx)
