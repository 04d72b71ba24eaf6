"""Rows of an array, chosen and repeated by index."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class BatchReindex:
    """bottom (N, ...), index (M,) of row numbers stored as numbers of the net's type -> top (M, ...)."""

    def __init__(self, backend: Backend, bottom: SyncedArray, index: SyncedArray, top: SyncedArray) -> None:
        self._num = bottom.shape[0]
        self.implementation = "numpy"

    def _rows(self, index: SyncedArray) -> NDArray[np.intp]:
        """The index as integers; DataError for one that is no row."""
        rows = index.plain().astype(np.intp)
        wrong = np.flatnonzero((rows < 0) | (rows >= self._num))
        if wrong.size:
            at = int(wrong[0])
            raise DataError(f"index of row {at} must be in [0, {self._num}), got {index.plain()[at]:g}")
        return rows

    def forward(self, bottom: SyncedArray, index: SyncedArray, top: SyncedArray) -> None:
        np.take(bottom.plain(), self._rows(index), axis=0, out=top.plain_overwrite(), mode="clip")

    def backward(self, top_diff: SyncedArray, index: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain(), bottom_diff.plain_overwrite()
        dx.fill(0)
        rows = self._rows(index)
        if not rows.size:
            return
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        dx[ordered[starts]] = np.add.reduceat(dy[order], starts, axis=0)
