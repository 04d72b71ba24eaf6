"""A block cut out of an array."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class Crop:
    """bottom -> top, which is the block of its own shape at `offsets`, one for each axis."""

    def __init__(
        self, backend: CudaBackend, offsets: Sequence[int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = own(bottom).form
        own(top).offer(self._form)
        kind = self._form.type
        whole, block = strides_of(bottom.shape, self._form), strides_of(top.shape, self._form)
        start = sum(offset * stride for offset, stride in zip(offsets, whole, strict=True))
        self._forward = StridedCopy(backend, top.shape, whole, block, x_start=start, values=kind)
        self._backward = StridedCopy(backend, top.shape, block, whole, y_start=start, values=kind)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom, form=self._form), write(top, form=self._form))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        bottom_diff.clear()
        self._backward.run(read(top_diff, form=self._form), update(bottom_diff, form=self._form))
