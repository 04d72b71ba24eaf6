"""MultinomialLogisticLoss: -log p[label] over N, of probabilities that some other layer made.

Source: Caffe's MultinomialLogisticLossLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.normalizer import Normalizer
from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.loss import (
    check_label_count,
    check_same_batch,
    locating_data_errors,
)
from dtrain.layers.no_gradient import refuse_gradient


@final
class MultinomialLogisticLoss(Layer):
    """bottom[0] probabilities (N, classes), bottom[1] N labels -> top[0] the loss."""

    type_name = "MultinomialLogisticLoss"
    num_bottoms = TWO
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        check_label_count(self, bottom, bottom[0].shape[0])
        self.op = self.ops.MultinomialLogisticLoss(bottom[0].shape, Normalizer(float(bottom[0].shape[0])))
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data)

    def check_data(self) -> None:
        with locating_data_errors(self):
            self.op.check()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 1)
        if propagate_down[0]:
            self.op.backward(bottom[0].data, bottom[1].data, top[0].diff, bottom[0].diff)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
