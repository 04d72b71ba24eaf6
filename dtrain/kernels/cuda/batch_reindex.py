"""Rows of an array, chosen and repeated by index."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.indexed_rows import IndexedRows


@final
class BatchReindex:
    """bottom (N, ...), index (M,) of row numbers stored as numbers of the net's type -> top (M, ...)."""

    def __init__(
        self, backend: CudaBackend, bottom: SyncedArray, index: SyncedArray, top: SyncedArray
    ) -> None:
        self._backend = backend
        self._num = bottom.shape[0]
        self.implementation = "cuda"

    def _rows(self, index: SyncedArray) -> IndexedRows:
        """The index as row numbers; DataError for one that is no row."""
        rows = index.plain().astype(np.intp)
        wrong = np.flatnonzero((rows < 0) | (rows >= self._num))
        if wrong.size:
            at = int(wrong[0])
            raise DataError(f"index of row {at} must be in [0, {self._num}), got {index.plain()[at]:g}")
        return IndexedRows(self._backend, rows)

    def forward(self, bottom: SyncedArray, index: SyncedArray, top: SyncedArray) -> None:
        self._rows(index).gather(bottom, top)

    def backward(self, top_diff: SyncedArray, index: SyncedArray, bottom_diff: SyncedArray) -> None:
        bottom_diff.clear()
        self._rows(index).add_up(top_diff, bottom_diff)
