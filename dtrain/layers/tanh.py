"""TanH: y = tanh(x). Source: Caffe's TanHLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class TanH(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "TanH"
    param_name = "tanh_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.TanH(bottom, top)
