"""Weighted sum of arrays: y = c0 x0 + c1 x1 + ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Sum:
    """Any number of bottoms of one shape -> top; the top may be the first bottom."""

    def __init__(
        self,
        backend: Backend,
        coefficients: Sequence[float],
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
    ) -> None:
        self.coefficients = list(coefficients)
        self.implementation = "numpy"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, *others = (b.plain() for b in bottoms)
        y = top.plain_mutable() if top is bottoms[0] else top.plain_overwrite()
        np.multiply(first, self.coefficients[0], out=y)
        for x, c in zip(others, self.coefficients[1:], strict=True):
            y += x if c == 1 else np.multiply(x, c, dtype=y.dtype)
