"""Concatenation of arrays along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Concat:
    """bottoms, equal except at `axis` -> top."""

    def __init__(self, backend: Backend, axis: int, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self.axis = axis
        self.ends = np.cumsum([bottom.shape[axis] for bottom in bottoms])[:-1].tolist()
        self.implementation = "numpy"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        np.concatenate([bottom.plain() for bottom in bottoms], axis=self.axis, out=top.plain_overwrite())

    def backward(self, top_diff: SyncedArray, bottom_diffs: Sequence[SyncedArray | None]) -> None:
        """None is not computed."""
        parts = np.split(top_diff.plain(), self.ends, axis=self.axis)
        for part, bottom_diff in zip(parts, bottom_diffs, strict=True):
            if bottom_diff is not None:
                np.copyto(bottom_diff.plain_overwrite(), part)
