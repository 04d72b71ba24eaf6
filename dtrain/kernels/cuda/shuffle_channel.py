"""Channels of groups dealt in turn: channel j of group i becomes channel j group + i."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy


@final
class ShuffleChannel:
    """bottom (N, C, ...) -> top of the same shape; `group` divides C."""

    def __init__(self, backend: CudaBackend, group: int, bottom: SyncedArray, top: SyncedArray) -> None:
        self._form = follow(bottom, top)
        n, c = bottom.shape[:2]
        rest = prod(bottom.shape[2:])
        extents = (n, c // group, group, rest)
        channel, pixel = (1, c) if self._form.channels_last else (rest, 1)
        dealt = [c * rest, group * channel, channel, pixel]
        grouped = [c * rest, channel, c // group * channel, pixel]
        self._forward = StridedCopy(backend, extents, grouped, dealt, values=self._form.type)
        self._backward = StridedCopy(backend, extents, dealt, grouped, values=self._form.type)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom, form=self._form), write(top, form=self._form))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._backward.run(read(top_diff, form=self._form), write(bottom_diff, form=self._form))
