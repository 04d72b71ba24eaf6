"""Parametric rectified linear unit: y = max(x, 0) + slope min(x, 0)."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, images_channels_inner
from dtrain.kernels.cuda.in_place import Kept


@final
class PReLU:
    """bottom (N, C, ...), slope (C,), or () for all channels -> top; top and bottom may be one array."""

    def __init__(
        self, backend: CudaBackend, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("channels.cu")
        images, self._channels, self._inner = images_channels_inner(bottom.shape)
        self._shared = int(slope.size != self._channels)
        self._sums = ChannelSums(backend, images, self._channels, self._inner)
        self._of_channels = backend.empty(self._channels)
        self._bottom = Kept(backend)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, slope: SyncedArray, top: SyncedArray) -> None:
        self._bottom.keep(bottom, top)
        sides = read(bottom), write(top), read(slope)
        self._kernels.each("prelu_forward", bottom.size, *sides, self._channels, self._inner, self._shared)

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        slope: SyncedArray,
        bottom_diff: SyncedArray | None,
        slope_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to `slope_diff`; None is not computed."""
        x = self._bottom.values(bottom)
        if slope_diff is not None:
            total = self._of_channels if self._shared else update(slope_diff)
            self._sums.run("channel_dot_negative", total, 1.0, read(top_diff), x)
            if self._shared:
                self._backend.sum_columns(self._channels, 1, self._of_channels, update(slope_diff))
        if bottom_diff is not None:
            sides = read(top_diff), x, write(bottom_diff), read(slope)
            self._kernels.each(
                "prelu_backward", top_diff.size, *sides, self._channels, self._inner, self._shared
            )
