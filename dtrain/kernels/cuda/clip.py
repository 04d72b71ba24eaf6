"""Clip: y = max(low, min(x, high))."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import Kept


@final
class Clip:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self, backend: CudaBackend, low: float, high: float, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("elementwise.cu", self._form.type)
        self.low = float(low)
        self.high = float(high)
        self._bottom = Kept(backend, self._form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        self._kernels.packed(
            "clip_forward",
            bottom.size,
            read(bottom, form=self._form),
            write(top, form=self._form),
            self.low,
            self.high,
        )

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.packed(
            "clip_backward",
            bottom.size,
            read(top_diff, form=self._form),
            self._bottom.values(bottom),
            write(bottom_diff, form=self._form),
            self.low,
            self.high,
        )
