"""Bias: y = x + b, the bias being the same along some axes."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums
from dtrain.kernels.cuda.in_place import same


@final
class Bias:
    """bias of the bottom's shape from `axis` on for some axes -> top; top and bottom may be one array."""

    def __init__(
        self, backend: CudaBackend, axis: int, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray
    ) -> None:
        self._kernels = backend.kernels("channels.cu")
        outer = prod(bottom.shape[:axis])
        self._channels = bias.size
        self._inner = bottom.size // max(outer * bias.size, 1)
        self._sums = ChannelSums(backend, outer, self._channels, self._inner)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray) -> None:
        sides = read(bottom), write(top), None, read(bias)
        self._kernels.each("scale_forward", bottom.size, *sides, self._channels, self._inner)

    def backward(
        self, top_diff: SyncedArray, bottom_diff: SyncedArray | None, bias_diff: SyncedArray | None
    ) -> None:
        """Overwrites `bottom_diff`, adds to `bias_diff`; None is not computed."""
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff))
        if bottom_diff is not None and not same(bottom_diff, top_diff):
            sides = read(top_diff), write(bottom_diff), None, None
            self._kernels.each("scale_forward", top_diff.size, *sides, self._channels, self._inner)
