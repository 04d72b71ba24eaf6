"""Elementwise maximum of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Maximum:
    """Two or more bottoms of one shape -> top; the gradient goes to the bottom that was the maximum.

    Where the first two are equal that is the second, otherwise the first of the equal ones.
    Source: Caffe's EltwiseLayer.
    """

    def __init__(self, backend: Backend, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self.index = np.zeros(top.shape, np.int32)  # of the bottom that was the maximum
        self.implementation = "numpy"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, second, *others = (bottom.plain() for bottom in bottoms)
        y = top.plain_overwrite()
        np.copyto(self.index, first <= second)
        np.maximum(first, second, out=y)
        for i, x in enumerate(others, 2):
            greater = x > y
            np.copyto(self.index, i, where=greater)
            np.copyto(y, x, where=greater)

    def backward(
        self,
        top_diff: SyncedArray,
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """None is not computed."""
        for i, bottom_diff in enumerate(bottom_diffs):
            if bottom_diff is not None:
                np.multiply(top_diff.plain(), self.index == i, out=bottom_diff.plain_overwrite())
