"""Threshold: y = 1 where x > threshold, else 0."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Threshold:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, threshold: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("elementwise.cu", self._form.type)
        self.threshold = float(threshold)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.packed(
            "threshold_forward",
            bottom.size,
            read(bottom, form=self._form),
            write(top, form=self._form),
            self.threshold,
        )
