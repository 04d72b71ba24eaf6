"""Max pooling turned round: each value goes to the place that its mask names."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class Unpool:
    """bottom (N, C, H, W), mask of its shape -> top (N, C, H', W'), zero where no mask points.

    The mask holds indices in the H' x W' plane, as the second top of max pooling does. Where several
    point at one place the last counts, and each of them gets the gradient. Source: SegNet's UpsampleLayer.
    """

    def __init__(self, backend: Backend, bottom: SyncedArray, mask: SyncedArray, top: SyncedArray) -> None:
        n, c = bottom.shape[:2]
        self._planes = (n, c, -1)
        self._plane = (top.shape[2], top.shape[3])
        self.implementation = "numpy"

    def _index(self, mask: SyncedArray) -> NDArray[np.intp]:
        """The mask as integers; DataError for an index outside the top's plane."""
        index = mask.plain().astype(np.intp).reshape(self._planes)
        places = self._plane[0] * self._plane[1]
        wrong = (index < 0) | (index >= places)
        if wrong.any():
            got = int(index[wrong][0])
            raise DataError(
                f"the mask must point into the top's {self._plane[0]} x {self._plane[1]} plane, got {got}; "
                f"the pooling layer that made it must have pooled an image of that size"
            )
        return index

    def forward(self, bottom: SyncedArray, mask: SyncedArray, top: SyncedArray) -> None:
        index = self._index(mask)
        y = top.plain_overwrite()
        y.fill(0)
        np.put_along_axis(y.reshape(self._planes), index, bottom.plain().reshape(self._planes), axis=2)

    def backward(self, top_diff: SyncedArray, mask: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = bottom_diff.plain_overwrite().reshape(self._planes)
        np.copyto(dx, np.take_along_axis(top_diff.plain().reshape(self._planes), self._index(mask), axis=2))
