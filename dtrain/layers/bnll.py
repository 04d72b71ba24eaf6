"""BNLL, binomial normal log likelihood: y = log(1 + exp(x)). Source: Caffe's BNLLLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class BNLL(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "BNLL"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.BNLL(bottom, top)
