"""The indices of the largest values along an axis, largest first."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class ArgMax:
    """bottom (N, C, ...) -> top; of equal values the one of the larger index comes first.

    With `axis`: top_k at that axis, the indices, or the values with `out_values`. Without: bottom as
    (N, C...), top (N, 1, top_k) of indices, or (N, 2, top_k) of indices and values.
    Source: Caffe's ArgMaxLayer.
    """

    def __init__(
        self,
        backend: CudaBackend,
        axis: int | None,
        top_k: int,
        out_values: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("copies.cu")
        self.axis = axis
        self.top_k = top_k
        self.out_values = out_values
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        if self.axis is None:
            num = bottom.shape[0]
            width, step = bottom.size // max(num, 1), 1
            row = top.size // max(num, 1)
            indices: Access | None = write(top)
            values = write(top, self.top_k) if self.out_values else None
        else:
            width, step = bottom.shape[self.axis], prod(bottom.shape[self.axis + 1 :])
            num = bottom.size // max(width, 1)
            row = self.top_k * step
            indices, values = (None, write(top)) if self.out_values else (write(top), None)
        sizes = width, step, self.top_k, row, step
        self._kernels.each("arg_max", num, read(bottom), indices, values, *sizes)
