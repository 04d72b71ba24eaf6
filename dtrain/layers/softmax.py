"""Softmax: y_i = exp(x_i) / sum_j exp(x_j) along one axis. Source: Caffe's SoftmaxLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer


@final
class Softmax(Layer):
    """bottom[0] -> top[0] of the same shape; may run in place."""

    type_name = "Softmax"
    param_name = "softmax_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters of the layer's own."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        axis = self.axis(self.spec.softmax_param.axis, len(bottom[0].shape), "softmax_param", "axis")
        top[0].reshape(bottom[0].shape)
        self.op = self.ops.Softmax(axis, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, top[0].data, bottom[0].diff)
