"""Swish: y = x sigmoid(beta x)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import Kept


@final
class Swish:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(self, backend: CudaBackend, beta: float, bottom: SyncedArray, top: SyncedArray) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("elementwise.cu", self._form.type)
        self.beta = float(beta)
        self._bottom = Kept(backend, self._form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        self._kernels.packed(
            "swish_forward",
            bottom.size,
            read(bottom, form=self._form),
            write(top, form=self._form),
            self.beta,
        )

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.packed(
            "swish_backward",
            bottom.size,
            read(top_diff, form=self._form),
            self._bottom.values(bottom),
            read(top, form=self._form),
            write(bottom_diff, form=self._form),
            self.beta,
        )
