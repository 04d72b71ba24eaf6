"""The indices of the largest values along an axis, largest first."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


@final
class ArgMax:
    """bottom (N, C, ...) -> top; of equal values the one of the larger index comes first.

    With `axis`: top_k at that axis, the indices, or the values with `out_values`. Without: bottom as
    (N, C...), top (N, 1, top_k) of indices, or (N, 2, top_k) of indices and values.
    Source: Caffe's ArgMaxLayer.
    """

    def __init__(
        self,
        backend: Backend,
        axis: int | None,
        top_k: int,
        out_values: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.axis = axis
        self.top_k = top_k
        self.out_values = out_values
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x, y = bottom.plain(), top.plain_overwrite()
        if self.axis is not None:
            index = self._largest(x, self.axis)
            y[...] = np.take_along_axis(x, index, self.axis) if self.out_values else index
            return
        x = x.reshape(x.shape[0], -1)
        index = self._largest(x, 1)
        pairs = y.reshape(x.shape[0], -1, self.top_k)
        pairs[:, 0] = index
        if self.out_values:
            pairs[:, 1] = np.take_along_axis(x, index, 1)

    def _largest(self, x: Plain, axis: int) -> NDArray[np.intp]:
        backwards = np.flip(x, axis)
        last = x.shape[axis] - 1
        if self.top_k == 1:
            return np.asarray(last - backwards.argmax(axis=axis, keepdims=True))
        order = np.argsort(-backwards, axis=axis, kind="stable")
        return np.asarray(last - np.take(order, np.arange(self.top_k), axis=axis))
