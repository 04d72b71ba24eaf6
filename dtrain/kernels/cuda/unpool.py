"""Max pooling turned round: each value goes to the place that its mask names."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.launch import THREADS, blocks


@final
class Unpool:
    """bottom (N, C, H, W), mask of its shape -> top (N, C, H', W'), zero where no mask points.

    The mask holds indices in the H' x W' plane, as the second top of max pooling does. Where several
    point at one place the last counts, and each of them gets the gradient. Source: SegNet's UpsampleLayer.
    """

    def __init__(
        self, backend: CudaBackend, bottom: SyncedArray, mask: SyncedArray, top: SyncedArray
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("copies.cu")
        self._outside = backend.empty(blocks(bottom.size), np.float64)  # how many, by block
        self._plane = (top.shape[2], top.shape[3])
        self._places = top.shape[2] * top.shape[3]
        self._own = bottom.shape[2] * bottom.shape[3]
        self._winner = backend.empty(top.size, np.int32)
        self.implementation = "cuda"

    def _check(self, mask: SyncedArray) -> None:
        """DataError for an index outside the top's plane."""
        count = self._outside.size
        args = mask.size, self._outside, read(mask), self._places
        self._kernels.launch("count_outside", (count,), (THREADS,), *args)
        if self._backend.fetch(self._outside).any():
            index = mask.plain().astype(np.intp)
            got = int(index[(index < 0) | (index >= self._places)][0])
            raise DataError(
                f"the mask must point into the top's {self._plane[0]} x {self._plane[1]} plane, got {got}; "
                f"the pooling layer that made it must have pooled an image of that size"
            )

    def forward(self, bottom: SyncedArray, mask: SyncedArray, top: SyncedArray) -> None:
        self._check(mask)
        planes = self._own, self._places
        self._backend.kernels("elementwise.cu").each("fill_index", top.size, self._winner, np.int32(-1))
        self._kernels.each("unpool_choose", bottom.size, read(mask), self._winner, *planes)
        self._kernels.each("unpool_forward", top.size, read(bottom), self._winner, write(top), *planes)

    def backward(self, top_diff: SyncedArray, mask: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._check(mask)
        sides = read(top_diff), read(mask), write(bottom_diff)
        self._kernels.each("unpool_backward", bottom_diff.size, *sides, self._own, self._places)
