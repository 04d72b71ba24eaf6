"""Elementwise maximum of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import best, own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Maximum:
    """Two or more bottoms of one shape -> top; the gradient goes to the bottom that was the maximum.

    Where the first two are equal that is the second, otherwise the first of the equal ones.
    Source: Caffe's EltwiseLayer.
    """

    def __init__(self, backend: CudaBackend, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        self._form = own(top).offer(best([own(bottom).form for bottom in bottoms]))
        self._kernels = backend.kernels("eltwise.cu", self._form.type)
        self._index = backend.empty(top.size, np.int32)  # of the bottom that was the maximum
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, second, *others = bottoms
        self._kernels.each(
            "maximum_first",
            top.size,
            read(first, form=self._form),
            read(second, form=self._form),
            write(top, form=self._form),
            self._index,
        )
        for i, other in enumerate(others, 2):
            self._kernels.each(
                "maximum_next",
                top.size,
                read(other, form=self._form),
                update(top, form=self._form),
                self._index,
                i,
            )

    def backward(
        self,
        top_diff: SyncedArray,
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """None is not computed."""
        for i, dx in enumerate(bottom_diffs):
            if dx is not None:
                self._kernels.each(
                    "maximum_backward",
                    top.size,
                    read(top_diff, form=self._form),
                    self._index,
                    write(dx, form=self._form),
                    i,
                )
