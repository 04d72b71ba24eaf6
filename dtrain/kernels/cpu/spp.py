"""Spatial pyramid pooling: several poolings of one image, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.pooling import Pooling
from dtrain.kernels.window import PoolingWindow


@final
class SPP:
    """bottom (N, C, H, W) -> top of N rows: level by level, the pooled image in Caffe's order."""

    def __init__(
        self,
        backend: Backend,
        windows: Sequence[PoolingWindow],
        training: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        image = bottom.shape[2:]
        self.pooled = [backend.array((*bottom.shape[:2], *window.pooled(image))) for window in windows]
        self.pooled_diffs = [backend.array(array.shape) for array in self.pooled]
        self.share = backend.array(bottom.shape)  # one level's part of the bottom's diff
        self.levels = [
            Pooling(backend, window, training, bottom, array, None)
            for window, array in zip(windows, self.pooled, strict=True)
        ]
        ends = np.cumsum([array.size // bottom.shape[0] for array in self.pooled])
        self.cuts = [
            slice(int(end) - array.size // bottom.shape[0], int(end))
            for end, array in zip(ends, self.pooled, strict=True)
        ]
        self.implementation = "numpy"

    def draw(self, key: int, rank: int = 0, size: int = 1) -> None:
        """As Pooling's, for each level by a key of its own."""
        for i, level in enumerate(self.levels):
            level.draw((key + i) % 2**64, rank, size)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        y = top.plain_overwrite()
        rows = y.reshape(y.shape[0], -1)
        for level, array, cut in zip(self.levels, self.pooled, self.cuts, strict=True):
            level.forward(bottom, array, None)
            rows[:, cut] = array.plain().reshape(len(rows), -1)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain(), bottom_diff.plain_overwrite()
        rows = dy.reshape(dy.shape[0], -1)
        dx.fill(0)
        for level, diff, cut in zip(self.levels, self.pooled_diffs, self.cuts, strict=True):
            diff.plain_overwrite()[...] = rows[:, cut].reshape(diff.shape)
            level.backward(diff, self.share)
            dx += self.share.plain()
