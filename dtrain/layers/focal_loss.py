"""FocalLoss: the softmax loss with easy samples weighted down: -alpha (1 - p)^gamma log p.

Source: Lin et al., Focal Loss for Dense Object Detection; parameters as in Caffe forks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.layers.layer import TWO, Blob, Blobs, Count, Layer
from dtrain.layers.loss import (
    check_label_count,
    check_same_batch,
    ignore_label,
    locating_data_errors,
    normalization,
    normalizer,
)
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.proto import dtrain_pb2 as pb


@final
class FocalLoss(Layer):
    """bottom[0] scores (N, C, ...), bottom[1] labels -> top[0] the loss; top[1] the softmax."""

    type_name = "FocalLoss"
    num_bottoms = TWO
    num_tops = Count(1, 2)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.focal_loss_param
        self.mode = normalization(self, pb.LossParameter.VALID)
        self.prob = Blob(self.scope.backend)
        if param.type != pb.FocalLossParameter.ORIGIN:
            raise self.bad_param(("focal_loss_param", "type"), "ORIGIN, the formula of the paper", "LINEAR")
        if param.alpha <= 0:
            raise self.bad_param(("focal_loss_param", "alpha"), "more than 0", param.alpha)
        if param.gamma < 0:
            raise self.bad_param(("focal_loss_param", "gamma"), "at least 0", param.gamma)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        check_same_batch(self, bottom)
        axis = self.axis(self.spec.softmax_param.axis, len(shape), "softmax_param", "axis")
        outer = int(np.prod(shape[:axis]))
        inner = int(np.prod(shape[axis + 1 :]))
        check_label_count(self, bottom, outer * inner)
        top[0].reshape(())
        self.prob.reshape(shape)
        if len(top) > 1:
            top[1].reshape(shape)
            top[1].share_data(self.prob)
        param = self.spec.focal_loss_param
        divisor = normalizer(self, self.mode, outer, inner)
        self.op = self.ops.FocalLoss(axis, param.alpha, param.gamma, ignore_label(self), divisor)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, self.prob.data, top[0].data)

    def check_data(self) -> None:
        with locating_data_errors(self):
            self.op.check()

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 1)
        if propagate_down[0]:
            self.op.backward(self.prob.data, bottom[1].data, top[0].diff, bottom[0].diff)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
