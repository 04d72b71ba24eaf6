"""Hyperbolic tangent."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class TanH:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels = backend.kernels("elementwise.cu")
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.each("tanh_forward", bottom.size, read(bottom), write(top))

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.each("tanh_backward", bottom.size, read(top_diff), read(top), write(bottom_diff))
