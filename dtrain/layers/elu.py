"""ELU: y = lambda (max(x, 0) + alpha (exp(min(x, 0)) - 1)).

Source: Caffe's ELULayer; lambda, which makes it SELU, NVCaffe's.
"""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs
from dtrain.layers.neuron import Neuron


@final
class ELU(Neuron):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "ELU"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.alpha: float = self.spec.elu_param.alpha
        self.scale = float(getattr(self.spec.elu_param, "lambda"))

    def operator(self, bottom: SyncedArray, top: SyncedArray) -> Any:
        return self.ops.ELU(self.alpha, self.scale, bottom, top)
