"""Rows of arrays where a selector is not zero."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.indexed_rows import IndexedRows


@final
class Filter:
    """selector (N, 1...), bottoms (N, ...) -> tops (rows chosen, ...)."""

    def __init__(self, backend: CudaBackend, selector: SyncedArray) -> None:
        self._backend = backend
        self._rows = IndexedRows(backend, np.arange(selector.shape[0]))
        self.implementation = "cuda"

    def choose(self, selector: SyncedArray) -> int:
        """Remember the rows whose selector is not zero; returns how many there are."""
        rows = np.flatnonzero(selector.plain())
        self._rows = IndexedRows(self._backend, rows)
        return int(rows.size)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._rows.gather(bottom, top)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._rows.scatter(top_diff, bottom_diff)
