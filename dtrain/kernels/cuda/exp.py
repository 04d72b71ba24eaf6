"""Exponential: y = outer exp(inner x)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Exp:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self, backend: CudaBackend, inner: float, outer: float, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("elementwise.cu", self._form.type)
        self.inner = float(inner)
        self.outer = float(outer)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.packed(
            "exp_forward",
            bottom.size,
            read(bottom, form=self._form),
            write(top, form=self._form),
            self.inner,
            self.outer,
        )

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.packed(
            "exp_backward",
            bottom.size,
            read(top_diff, form=self._form),
            read(top, form=self._form),
            write(bottom_diff, form=self._form),
            self.inner,
        )
