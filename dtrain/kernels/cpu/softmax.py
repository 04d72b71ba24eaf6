"""Softmax over one axis: y_i = exp(x_i) / sum_j exp(x_j)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


def rows(x: Plain, axis: int) -> Plain:
    """(outer, channels, inner) view with the axis in the middle."""
    return x.reshape(int(np.prod(x.shape[:axis])), x.shape[axis], -1)


def softmax(x: Plain, out: Plain) -> None:
    """Over axis 1, shifted by the maximum so that nothing overflows."""
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=1, keepdims=True)


@final
class Softmax:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: Backend, axis: int, bottom: SyncedArray, top: SyncedArray) -> None:
        self.axis = axis
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x = bottom.plain()
        y = top.plain_mutable() if top is bottom else top.plain_overwrite()
        softmax(rows(x, self.axis), rows(y, self.axis))

    def backward(self, top_diff: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray) -> None:
        """dx = (dy - sum(dy * y)) * y."""
        y, dy = rows(top.plain(), self.axis), rows(top_diff.plain(), self.axis)
        dx = bottom_diff.plain_mutable() if bottom_diff is top_diff else bottom_diff.plain_overwrite()
        np.multiply(dy - (dy * y).sum(axis=1, keepdims=True), y, out=rows(dx, self.axis))
