"""The axes of an array in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Permute:
    """bottom -> top, whose axis i is axis order[i] of the bottom."""

    def __init__(self, backend: Backend, order: Sequence[int], bottom: SyncedArray, top: SyncedArray) -> None:
        self.order = tuple(order)
        self.inverse = tuple(int(i) for i in np.argsort(self.order))
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        np.copyto(top.plain_overwrite(), bottom.plain().transpose(self.order))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        np.copyto(bottom_diff.plain_overwrite(), top_diff.plain().transpose(self.inverse))
