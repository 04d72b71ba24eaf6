"""Product of arrays: y = x0 x1 ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Product:
    """Two or more bottoms of one shape -> top.

    With `stable` the gradient of a bottom is the product of the others, otherwise y / x, which is not a
    number where x is 0. Source: Caffe's EltwiseLayer.
    """

    def __init__(
        self, backend: Backend, stable: bool, bottoms: Sequence[SyncedArray], top: SyncedArray
    ) -> None:
        self.stable = stable
        self.implementation = "numpy"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, second, *others = (bottom.plain() for bottom in bottoms)
        y = top.plain_overwrite()
        np.multiply(first, second, out=y)
        for x in others:
            y *= x

    def backward(
        self,
        top_diff: SyncedArray,
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """None is not computed."""
        for i, bottom_diff in enumerate(bottom_diffs):
            if bottom_diff is None:
                continue
            dx = bottom_diff.plain_overwrite()
            if self.stable:
                np.copyto(dx, top_diff.plain())
                for j, other in enumerate(bottoms):
                    if j != i:
                        dx *= other.plain()
            else:
                with np.errstate(divide="ignore", invalid="ignore"):
                    np.divide(top.plain(), bottoms[i].plain(), out=dx)
                    dx *= top_diff.plain()
