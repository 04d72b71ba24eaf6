"""Threshold: y = 1 where x > threshold, else 0."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Threshold:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, threshold: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels = backend.kernels("elementwise.cu")
        self.threshold = float(threshold)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.each("threshold_forward", bottom.size, read(bottom), write(top), self.threshold)
