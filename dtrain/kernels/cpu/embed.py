"""A table of vectors: y = table[index] + bias."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Index, integers


@final
class Embed:
    """indices of any shape, table (rows, outputs), bias (outputs,) or None -> top (*indices, outputs)."""

    def __init__(
        self,
        backend: Backend,
        indices: SyncedArray,
        table: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self.implementation = "numpy"

    @staticmethod
    def _rows(indices: SyncedArray, num_rows: int) -> Index:
        """The indices in one line; DataError, naming the sample, for one that is no row."""
        values = indices.plain()
        index = integers(values)
        wrong = (index < 0) | (index >= num_rows) | (index != values)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise DataError(
                f"index of sample {at[0] if at else 0} of the batch must be a whole number in "
                f"[0, {num_rows}), got {values[at]:g}"
            )
        return index.reshape(-1)

    def forward(
        self, indices: SyncedArray, table: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        w = table.plain()
        y = top.plain_overwrite().reshape(-1, w.shape[1])
        np.take(w, self._rows(indices, len(w)), axis=0, out=y)
        if bias is not None:
            y += bias.plain()

    def backward(
        self,
        top_diff: SyncedArray,
        indices: SyncedArray,
        table_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Adds to the diffs; rows that occur several times are summed first."""
        if table_diff is not None:
            dw = table_diff.plain_mutable()
            dy = top_diff.plain().reshape(-1, dw.shape[1])
            index = self._rows(indices, len(dw))
            if len(index):
                order = np.argsort(index, kind="stable")
                ordered = index[order]
                starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
                dw[ordered[starts]] += np.add.reduceat(dy[order], starts, axis=0)
        if bias_diff is not None:
            db = bias_diff.plain_mutable()
            db += top_diff.plain().reshape(-1, len(db)).sum(axis=0)
