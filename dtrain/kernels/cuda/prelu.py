"""Parametric rectified linear unit: y = max(x, 0) + slope min(x, 0)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import follow, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, seen_by
from dtrain.kernels.cuda.in_place import Kept


@final
class PReLU:
    """bottom (N, C, ...), slope (C,), or () for all channels -> top; top and bottom may be one array."""

    def __init__(
        self, backend: CudaBackend, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = follow(bottom, top)
        self._kernels = backend.kernels("channels.cu", self._form.type)
        axis = 0 if slope.size == 1 else 1
        images, self._channels, self._inner = seen_by(bottom.shape, axis, slope.size, self._form)
        self._sums = ChannelSums(backend, images, self._channels, self._inner, self._form)
        self._bottom = Kept(backend, self._form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        sides = read(bottom, form=self._form), write(top, form=self._form), read(slope)
        self._kernels.packed("prelu_forward", bottom.size, *sides, self._channels, self._inner)

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        slope: SyncedArray,
        bottom_diff: SyncedArray | None,
        slope_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to `slope_diff`; None is not computed."""
        x, dy = self._bottom.values(bottom), read(top_diff, form=self._form)
        if slope_diff is not None:
            self._sums.run("channel_dot_negative", update(slope_diff), 1.0, dy, x)
        if bottom_diff is not None:
            sides = dy, x, write(bottom_diff, form=self._form), read(slope)
            self._kernels.packed("prelu_backward", top_diff.size, *sides, self._channels, self._inner)
