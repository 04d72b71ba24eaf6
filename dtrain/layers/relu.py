"""ReLU: y = max(x, 0) + negative_slope min(x, 0). Source: Caffe's ReLULayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer


@final
class ReLU(Layer):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "ReLU"
    param_name = "relu_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.slope: float = self.spec.relu_param.negative_slope
        self.is_fused = False  # the layer before computes the forward pass of this one

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)
        self.op = self.ops.ReLU(self.slope, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if not self.is_fused or self.scope.is_partial:
            self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].data, bottom[0].diff)
