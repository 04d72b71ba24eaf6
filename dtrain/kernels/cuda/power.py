"""Power: y = (shift + scale x) ^ power; not a number where that has none."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.in_place import Kept


@final
class Power:
    """bottom -> top of the same shape; both may be one array."""

    def __init__(
        self,
        backend: CudaBackend,
        power: float,
        scale: float,
        shift: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("elementwise.cu", self._form.type)
        self.power = float(power)
        self.scale = float(scale)
        self.shift = float(shift)
        self._bottom = Kept(backend, self._form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        self._kernels.packed(
            "power_forward",
            bottom.size,
            read(bottom, form=self._form),
            write(top, form=self._form),
            self.power,
            self.scale,
            self.shift,
        )

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        self._kernels.packed(
            "power_backward",
            bottom.size,
            read(top_diff, form=self._form),
            self._bottom.values(bottom),
            write(bottom_diff, form=self._form),
            self.power * self.scale,
            self.power - 1,
            self.scale,
            self.shift,
        )
