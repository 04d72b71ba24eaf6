"""Binomial normal log likelihood: y = log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import Kept


@final
class BNLL:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels = backend.kernels("elementwise.cu")
        self._bottom = Kept(backend)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        self._kernels.each("bnll_forward", bottom.size, read(bottom), write(top))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.each(
            "bnll_backward", bottom.size, read(top_diff), self._bottom.values(bottom), write(bottom_diff)
        )
