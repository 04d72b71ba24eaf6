"""Threshold: y = 1 where x > threshold, else 0. Source: Caffe's ThresholdLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.no_gradient import refuse_gradient


@final
class Threshold(Layer):
    """bottom[0] -> top[0] of the same shape; may run in place; there is no gradient."""

    type_name = "Threshold"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.threshold: float = self.spec.threshold_param.threshold

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        top[0].reshape(bottom[0].shape)
        self.op = self.ops.Threshold(self.threshold, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 0)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
