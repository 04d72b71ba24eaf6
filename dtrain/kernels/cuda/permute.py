"""The axes of an array in another order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class Permute:
    """bottom -> top, whose axis i is axis order[i] of the bottom."""

    def __init__(
        self, backend: CudaBackend, order: Sequence[int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = own(bottom).form
        self._top_form = own(top).offer(Form(self._form.type))  # to channels last and back is a copy then
        kind = self._form.type
        given = strides_of(bottom.shape, self._form)
        theirs = [given[axis] for axis in order]
        extents = [bottom.shape[axis] for axis in order]
        self._forward = StridedCopy(backend, extents, theirs, strides_of(extents), values=kind)
        self._backward = StridedCopy(backend, extents, strides_of(extents), theirs, values=kind)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom, form=self._form), write(top, form=self._top_form))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._backward.run(read(top_diff, form=self._top_form), write(bottom_diff, form=self._form))
