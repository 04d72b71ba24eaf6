"""A table of vectors: y = table[index] + bias."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.labels import integers
from dtrain.kernels.cuda.array import read, update
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.indexed_rows import IndexedRows


@final
class Embed:
    """indices of any shape, table (rows, outputs), bias (outputs,) or None -> top (*indices, outputs)."""

    def __init__(
        self,
        backend: CudaBackend,
        indices: SyncedArray,
        table: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._outputs = table.shape[1]
        self.implementation = "cuda"

    def _rows(self, indices: SyncedArray, num_rows: int) -> IndexedRows:
        """The indices as row numbers; DataError, naming the sample, for one that is no row."""
        values = indices.plain()
        index = integers(values)
        wrong = (index < 0) | (index >= num_rows) | (index != values)
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise DataError(
                f"index of sample {at[0] if at else 0} of the batch must be a whole number in "
                f"[0, {num_rows}), got {values[at]:g}"
            )
        return IndexedRows(self._backend, index.reshape(-1))

    def forward(
        self, indices: SyncedArray, table: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        self._rows(indices, table.shape[0]).gather(table, top, bias)

    def backward(
        self,
        top_diff: SyncedArray,
        indices: SyncedArray,
        table_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Adds to the diffs; rows that occur several times are summed first."""
        if table_diff is not None:
            self._rows(indices, table_diff.shape[0]).add_up(top_diff, table_diff)
        if bias_diff is not None:
            rows = top_diff.size // max(self._outputs, 1)
            self._backend.sum_columns(rows, self._outputs, read(top_diff), update(bias_diff))
