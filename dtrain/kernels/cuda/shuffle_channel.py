"""Channels of groups dealt in turn: channel j of group i becomes channel j group + i."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class ShuffleChannel:
    """bottom (N, C, ...) -> top of the same shape; `group` divides C."""

    def __init__(self, backend: CudaBackend, group: int, bottom: SyncedArray, top: SyncedArray) -> None:
        n, c = bottom.shape[:2]
        rest = prod(bottom.shape[2:])
        extents = (n, c // group, group, rest)
        dealt = strides_of(extents)
        grouped = [c * rest, rest, c // group * rest, 1]
        self._forward = StridedCopy(backend, extents, grouped, dealt)
        self._backward = StridedCopy(backend, extents, dealt, grouped)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom), write(top))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._backward.run(read(top_diff), write(bottom_diff))
