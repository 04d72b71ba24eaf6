"""Spatial pyramid pooling: several poolings of one image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.blocks import Blocks
from dtrain.kernels.cuda.pooling import Pooling
from dtrain.kernels.window import PoolingWindow


@final
class SPP:
    """bottom (N, C, H, W) -> top of N rows: level by level, the pooled image in Caffe's order."""

    def __init__(
        self,
        backend: CudaBackend,
        windows: Sequence[PoolingWindow],
        training: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        image = bottom.shape[2:]
        self._kernels = backend.kernels("eltwise.cu")
        self._pooled = [backend.array((*bottom.shape[:2], *window.pooled(image))) for window in windows]
        self._pooled_diffs = [backend.array(array.shape) for array in self._pooled]
        self._share = backend.array(bottom.shape)  # one level's part of the bottom's diff
        self._levels = [
            Pooling(backend, window, training, bottom, array, None)
            for window, array in zip(windows, self._pooled, strict=True)
        ]
        num = bottom.shape[0]
        self._blocks = Blocks(backend, 1, [(num, array.size // num) for array in self._pooled])
        self.implementation = "cuda"

    def draw(self, key: int, rank: int = 0, size: int = 1) -> None:
        """As Pooling's, for each level by a key of its own."""
        for i, level in enumerate(self._levels):
            level.draw((key + i) % 2**64, rank, size)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        for level, array in zip(self._levels, self._pooled, strict=True):
            level.forward(bottom, array, None)
        self._blocks.join(self._pooled, top)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._blocks.part(top_diff, self._pooled_diffs)
        bottom_diff.clear()
        for level, diff in zip(self._levels, self._pooled_diffs, strict=True):
            level.backward(diff, self._share)
            sides = read(self._share), update(bottom_diff)
            self._kernels.each("add_scaled", bottom_diff.size, *sides, 1.0, 1.0)
