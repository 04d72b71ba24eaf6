"""HingeLoss: one-versus-all hinge over N, of first or second power. Source: Caffe's HingeLossLayer."""

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
from dtrain.proto import dtrain_pb2 as pb


@final
class HingeLoss(Layer):
    """bottom[0] scores (N, classes), bottom[1] N labels -> top[0] the loss."""

    type_name = "HingeLoss"
    num_bottoms = TWO
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.squared = self.spec.hinge_loss_param.norm == pb.HingeLossParameter.L2

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        check_label_count(self, bottom, bottom[0].shape[0])
        self.op = self.ops.HingeLoss(self.squared, bottom[0].shape, Normalizer(float(bottom[0].shape[0])))
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
