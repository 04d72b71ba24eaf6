"""The axes of an array in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class Permute:
    """bottom -> top, whose axis i is axis order[i] of the bottom."""

    def __init__(
        self, backend: CudaBackend, order: Sequence[int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        own = strides_of(bottom.shape)
        theirs = [own[axis] for axis in order]
        extents = [bottom.shape[axis] for axis in order]
        self._forward = StridedCopy(backend, extents, theirs, strides_of(extents))
        self._backward = StridedCopy(backend, extents, strides_of(extents), theirs)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom), write(top))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._backward.run(read(top_diff), write(bottom_diff))
