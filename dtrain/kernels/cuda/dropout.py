"""Dropout: y = x / (1 - ratio) where a drawn bit says so, else 0; the bits are those of the CPU."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import same


@final
class Dropout:
    """bottom -> top of the same shape; both may be one array; `ratio` 0 copies.

    The mask is drawn where it is used, both ways, and never stored; `key` is that of the forward pass, in
    backward too.
    """

    def __init__(
        self,
        backend: CudaBackend,
        ratio: float,
        rank: int,
        size: int,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("elementwise.cu")
        self.ratio = ratio
        self.rank = rank
        self.size = size
        self._rows = bottom.shape[0] if bottom.shape else 1
        self._width = bottom.size // self._rows if self._rows else 0
        self._limit = np.uint32(min(round(ratio * 2**32), 2**32 - 1))
        self.implementation = "cuda"

    def _apply(self, source: SyncedArray, result: SyncedArray, key: int) -> None:
        if self.ratio == 0:
            if not same(source, result):
                self._kernels.each("scale_by", source.size, read(source), write(result), 1.0)
            return
        self._kernels.each(
            "dropout",
            self._rows * ((self._width + 1) // 2),
            read(source),
            write(result),
            self._width,
            np.uint64(key),
            self._limit,
            1 / (1 - self.ratio),
            self.rank,
            self.size,
        )

    def forward(self, bottom: SyncedArray, top: SyncedArray, key: int) -> None:
        self._apply(bottom, top, key)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray, key: int) -> None:
        self._apply(top_diff, bottom_diff, key)
