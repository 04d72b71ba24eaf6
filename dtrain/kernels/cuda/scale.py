"""Scale: y = s x + b, the factor and the bias being the same along some axes."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, form_of, seen_by
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
        self._form = own(top).offer(form_of(bottom, axis, scale.shape))
        self._kernels = backend.kernels("channels.cu", self._form.type)
        images, self._channels, self._inner = seen_by(bottom.shape, axis, scale.size, self._form)
        self._sums = ChannelSums(backend, images, self._channels, self._inner, self._form)
        self._bottom = Kept(backend, self._form)
        self.implementation = "cuda"

    def forward(
        self, bottom: SyncedArray, scale: SyncedArray, bias: SyncedArray | None, top: SyncedArray, keep: bool
    ) -> None:
        """`keep` says that backward may ask for the scale's diff, which needs the bottom's values."""
        if keep:
            self._bottom.keep(bottom, top)
        x, y = read(bottom, form=self._form), write(top, form=self._form)
        sides = x, y, read(scale), maybe(read, bias)
        self._kernels.packed("scale_forward", bottom.size, *sides, self._channels, self._inner)

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
        dy = read(top_diff, form=self._form)
        if scale_diff is not None:
            values = self._bottom.values(bottom)
            self._sums.run("channel_dot", update(scale_diff), 1.0, dy, values)
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, dy)
        if bottom_diff is not None:
            sides = dy, write(bottom_diff, form=self._form), read(scale), None
            self._kernels.packed("scale_forward", top_diff.size, *sides, self._channels, self._inner)
