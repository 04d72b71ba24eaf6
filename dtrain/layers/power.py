"""Power: y = (shift + scale x) ^ power. Source: Caffe's PowerLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class Power(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Power"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.power_param
        self.power: float = param.power
        self.scale: float = param.scale
        self.shift: float = param.shift

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.Power(self.power, self.scale, self.shift, bottom, top)
