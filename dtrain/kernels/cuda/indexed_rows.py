"""Rows of a matrix by number. The host reads the numbers, so that a wrong one is told in time."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer


@final
class IndexedRows:
    """Row numbers, checked by the caller, for gathering rows and for adding up rows of one place."""

    def __init__(self, backend: CudaBackend, rows: NDArray[np.integer[Any]]) -> None:
        self._backend = backend
        self._kernels = backend.kernels("copies.cu")
        self._rows = rows
        self._on_device = backend.constants(rows, np.int32)

    def gather(self, source: SyncedArray, target: SyncedArray, bias: SyncedArray | None = None) -> None:
        """target row r = source row rows[r], plus the bias."""
        if self._rows.size:
            width = target.size // self._rows.size
            sides = read(source), write(target), self._on_device, maybe(read, bias)
            self._kernels.each("gather_rows", target.size, *sides, width)

    def scatter(self, source: SyncedArray, target: SyncedArray) -> None:
        """target row rows[r] = source row r, the others zero; no row occurs twice."""
        target.clear()
        if self._rows.size:
            width = source.size // self._rows.size
            sides = read(source), update(target), self._on_device
            self._kernels.each("scatter_rows", source.size, *sides, width)

    def add_up(self, source: SyncedArray, target: SyncedArray) -> None:
        """target row rows[r] += source row r; rows that occur several times are summed first, in order."""
        if not self._rows.size:
            return
        order = np.argsort(self._rows, kind="stable")
        distinct, starts = np.unique(self._rows[order], return_index=True)
        tables: list[Buffer] = [
            self._backend.constants(table, np.int32)
            for table in (distinct, np.append(starts, order.size), order)
        ]
        width = source.size // self._rows.size
        sides = read(source), update(target)
        self._kernels.each("sum_rows", distinct.size * width, *sides, *tables, width, 1)
