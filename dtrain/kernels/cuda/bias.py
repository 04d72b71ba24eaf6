"""Bias: y = x + b, the bias being the same along some axes."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums, form_of, seen_by
from dtrain.kernels.cuda.in_place import same


@final
class Bias:
    """bias of the bottom's shape from `axis` on for some axes -> top; top and bottom may be one array."""

    def __init__(
        self, backend: CudaBackend, axis: int, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray
    ) -> None:
        self._form = own(top).offer(form_of(bottom, axis, bias.shape))
        self._kernels = backend.kernels("channels.cu", self._form.type)
        images, self._channels, self._inner = seen_by(bottom.shape, axis, bias.size, self._form)
        self._sums = ChannelSums(backend, images, self._channels, self._inner, self._form)
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray) -> None:
        sides = read(bottom, form=self._form), write(top, form=self._form), None, read(bias)
        self._kernels.packed("scale_forward", bottom.size, *sides, self._channels, self._inner)

    def backward(
        self, top_diff: SyncedArray, bottom_diff: SyncedArray | None, bias_diff: SyncedArray | None
    ) -> None:
        """Overwrites `bottom_diff`, adds to `bias_diff`; None is not computed."""
        dy = read(top_diff, form=self._form)
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, dy)
        if bottom_diff is not None and not same(bottom_diff, top_diff):
            sides = dy, write(bottom_diff, form=self._form), None, None
            self._kernels.packed("scale_forward", top_diff.size, *sides, self._channels, self._inner)
