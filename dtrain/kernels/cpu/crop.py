"""A block cut out of an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Crop:
    """bottom -> top, which is the block of its own shape at `offsets`, one for each axis."""

    def __init__(
        self, backend: Backend, offsets: Sequence[int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._block = tuple(
            slice(start, start + extent) for start, extent in zip(offsets, top.shape, strict=True)
        )
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.copyto(top.plain_overwrite(), bottom.plain()[self._block])

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite()
        dx.fill(0)
        dx[self._block] = top_diff.plain()
