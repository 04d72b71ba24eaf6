"""Upsampling by repetition: every pixel becomes a block of equal pixels."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class RepeatPixels:
    """bottom (N, C, H, W) -> top (N, C, H scale_h, W scale_w)."""

    def __init__(
        self, backend: Backend, scale: tuple[int, int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        n, c, h, w = bottom.shape
        self._pixels = (n, c, h, 1, w, 1)
        self._blocks = (n, c, h, scale[0], w, scale[1])
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.copyto(top.plain_overwrite().reshape(self._blocks), bottom.plain().reshape(self._pixels))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite().reshape(self._pixels)
        top_diff.plain().reshape(self._blocks).sum(axis=(3, 5), keepdims=True, out=dx)
