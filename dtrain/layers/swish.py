"""Swish: y = x sigmoid(beta x). Source: Caffe's SwishLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class Swish(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Swish"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.beta: float = self.spec.swish_param.beta

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.Swish(self.beta, bottom, top)
