"""Dropout: y = x / (1 - ratio) where a drawn bit says so, else 0; the bits are those of the CPU."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import same


@final
class Dropout:
    """bottom -> top of the same shape; both may be one array; `ratio` 0 copies.

    The mask is drawn where it is used, both ways, and never stored; `draw` sets the key of the passes that
    follow. Values stay in the form in which the bottom comes.
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
        self._backend = backend
        self._form = own(bottom).form if same(bottom, top) else own(top).offer(own(bottom).form)
        self._kernels = backend.kernels("dropout.cu", self._form.type)
        self._key = backend.variable(1, np.uint64)
        self.ratio = ratio
        self.rank = rank
        self.size = size
        self._limit = np.uint32(min(round(ratio * 2**32), 2**32 - 1))
        self.implementation = "cuda"

    def draw(self, key: int) -> None:
        """Forward and backward passes that follow take the mask of this key."""
        self._key.set(key)

    def _apply(self, source: SyncedArray, result: SyncedArray) -> None:
        x, y = read(source, form=self._form), write(result, form=self._form)
        if self.ratio == 0:
            if not same(source, result):
                self._backend.copy(x, y)
            return
        drawing = self._key.buffer, self._limit, 1 / (1 - self.ratio), self.rank, self.size
        shape = source.shape
        if self._form.channels_last:
            settings = shape[1], shape[2] * shape[3], *drawing
            self._kernels.each("dropout_channels_last", source.size, x, y, *settings)
        else:
            rows = shape[0] if shape else 1
            width = source.size // rows if rows else 0
            self._kernels.each("dropout", rows * ((width + 1) // 2), x, y, width, *drawing)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._apply(bottom, top)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._apply(top_diff, bottom_diff)
