"""Slices of one array along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Slice:
    """bottom -> tops, which put together along `axis` are the bottom."""

    def __init__(self, backend: Backend, axis: int, bottom: SyncedArray, tops: Sequence[SyncedArray]) -> None:
        self.axis = axis
        self.ends = np.cumsum([top.shape[axis] for top in tops])[:-1].tolist()
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, tops: Sequence[SyncedArray]) -> None:
        for part, top in zip(np.split(bottom.plain(), self.ends, axis=self.axis), tops, strict=True):
            np.copyto(top.plain_overwrite(), part)

    def backward(self, top_diffs: Sequence[SyncedArray], bottom_diff: SyncedArray) -> None:
        parts = [top_diff.plain() for top_diff in top_diffs]
        np.concatenate(parts, axis=self.axis, out=bottom_diff.plain_overwrite())
