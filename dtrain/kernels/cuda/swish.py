"""Swish: y = x sigmoid(beta x)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import Kept


@final
class Swish:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, beta: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels = backend.kernels("elementwise.cu")
        self.beta = float(beta)
        self._bottom = Kept(backend)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        self._kernels.each("swish_forward", bottom.size, read(bottom), write(top), self.beta)

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.each(
            "swish_backward",
            bottom.size,
            read(top_diff),
            self._bottom.values(bottom),
            read(top),
            write(bottom_diff),
            self.beta,
        )
