"""Dropout in one pass over memory: the mask is drawn where it is used, both ways, and never stored."""

from __future__ import annotations

from typing import final

import numba
import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cpu import threads
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.in_place import target
from dtrain.kernels.cpu.jit.compiler import parallel

ROW_BLOCKS = 8  # pieces of a row, so that few long rows keep all threads busy


@parallel
def _apply(
    x: Plain, y: Plain, key: np.uint64, threshold: np.uint64, scale: np.float32, rank: int, size: int
) -> None:
    """x, y (rows, width); the bits are those of kernels/cpu/dropout.py."""
    rows, width = x.shape
    words = (width + 1) // 2
    per_block = (words + ROW_BLOCKS - 1) // ROW_BLOCKS
    for piece in numba.prange(rows * ROW_BLOCKS):
        row, block = piece // ROW_BLOCKS, piece % ROW_BLOCKS
        first = (np.uint64(row) * np.uint64(size) + np.uint64(rank)) * np.uint64(words)
        for word in range(block * per_block, min(words, (block + 1) * per_block)):
            z = key + (first + np.uint64(word + 1)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            column = 2 * word
            low = z & np.uint64(0xFFFFFFFF)
            y[row, column] = x[row, column] * scale if low >= threshold else np.float32(0)
            if column + 1 < width:
                high = z >> np.uint64(32)
                y[row, column + 1] = x[row, column + 1] * scale if high >= threshold else np.float32(0)


@final
class Dropout:
    """As kernels/cpu/dropout.py says."""

    def __init__(
        self, backend: CpuBackend, ratio: float, rank: int, size: int, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        if ratio == 0 or not bottom.shape or backend.dtype != np.float32:
            raise Unsupported("dropout that copies, of a scalar, or not in float32")
        threads.lead_numba()
        self.rank = rank
        self.size = size
        self.scale = np.float32(1 / (1 - ratio))
        self.threshold = np.uint64(min(round(ratio * 2**32), 2**32 - 1))
        self.implementation = "numba"
        self._key = np.uint64(0)

    def draw(self, key: int) -> None:
        """Forward and backward passes that follow take the mask of this key."""
        self._key = np.uint64(key)

    def _apply(self, source: SyncedArray, result: SyncedArray) -> None:
        x = source.plain()
        y = target(result, source)
        rows = x.shape[0]
        shape = (rows, x.size // rows if rows else 0)
        _apply(
            x.reshape(shape),
            y.reshape(shape),
            self._key,
            self.threshold,
            self.scale,
            self.rank,
            self.size,
        )

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._apply(bottom, top)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._apply(top_diff, bottom_diff)
