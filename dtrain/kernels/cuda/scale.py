"""Scale: y = s x + b, the factor and the bias being the same along some axes."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums
from dtrain.kernels.cuda.in_place import Kept


@final
class Scale:
    """scale and bias, or None, of the bottom's shape from `axis` on for some axes -> top of its shape.

    Top and bottom may be one array. Source: Caffe's ScaleLayer.
    """

    def __init__(
        self,
        backend: CudaBackend,
        axis: int,
        bottom: SyncedArray,
        scale: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self._kernels = backend.kernels("channels.cu")
        outer = prod(bottom.shape[:axis])
        self._channels = scale.size
        self._inner = bottom.size // max(outer * scale.size, 1)
        self._sums = ChannelSums(backend, outer, self._channels, self._inner)
        self._bottom = Kept(backend)
        self.implementation = "cuda"

    def forward(
        self, bottom: SyncedArray, scale: SyncedArray, bias: SyncedArray | None, top: SyncedArray, keep: bool
    ) -> None:
        """`keep` says that backward may ask for the scale's diff, which needs the bottom's values."""
        if keep:
            self._bottom.keep(bottom, top)
        sides = read(bottom), write(top), read(scale), maybe(read, bias)
        self._kernels.each("scale_forward", bottom.size, *sides, self._channels, self._inner)

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        if scale_diff is not None:
            values = self._bottom.values(bottom)
            self._sums.run("channel_dot", update(scale_diff), 1.0, read(top_diff), values)
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff))
        if bottom_diff is not None:
            sides = read(top_diff), write(bottom_diff), read(scale), None
            self._kernels.each("scale_forward", top_diff.size, *sides, self._channels, self._inner)
