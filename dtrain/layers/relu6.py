"""ReLU6: y = min(max(x, 0), 6). Source: Howard et al., MobileNets, 2017."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class ReLU6(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "ReLU6"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.ReLU6(bottom, top)
