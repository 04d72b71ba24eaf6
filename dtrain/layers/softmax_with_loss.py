"""SoftmaxWithLoss: the multinomial logistic loss of the softmax of the scores, in one stable step.

Source: Caffe's SoftmaxWithLossLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import Plain
from dtrain.layers.layer import TWO, Blob, Blobs, Count, Layer
from dtrain.layers.loss import (
    check_label_count,
    ignore_label,
    locating_data_errors,
    normalization,
    normalizer,
)
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.proto import dtrain_pb2 as pb


@final
class SoftmaxWithLoss(Layer):
    """bottom[0] scores (N, C, ...), bottom[1] labels (N, 1, ...) -> top[0] the loss; top[1] the softmax."""

    type_name = "SoftmaxWithLoss"
    num_bottoms = TWO
    num_tops = Count(1, 2)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.loss_param
        self.ignore_label = ignore_label(self)
        self.mode = normalization(self, pb.LossParameter.VALID)
        self.prob = Blob(self.scope.backend)
        if not 0 <= param.label_smoothing < 1:
            raise self.bad_param(("loss_param", "label_smoothing"), "in [0, 1)", param.label_smoothing)

    def _class_weights(self, classes: int) -> Plain | None:
        param = self.spec.loss_param
        if not param.weight_by_label_freqs:
            return None
        given = param.class_weighting
        if len(given) != classes:
            raise self.bad_param(
                ("loss_param", "class_weighting"), f"given once per class ({classes})", f"{len(given)} times"
            )
        return np.asarray(given, np.float64)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        self.softmax_axis = self.axis(self.spec.softmax_param.axis, len(shape), "softmax_param", "axis")
        outer = int(np.prod(shape[: self.softmax_axis]))
        inner = int(np.prod(shape[self.softmax_axis + 1 :]))
        check_label_count(self, bottom, outer * inner)
        top[0].reshape(())
        self.prob.reshape(shape)
        if len(top) > 1:
            top[1].reshape(shape)
            top[1].share_data(self.prob)
        self.op = self.ops.SoftmaxLoss(
            self.softmax_axis,
            self.ignore_label,
            self._class_weights(shape[self.softmax_axis]),
            self.spec.loss_param.label_smoothing,
            shape,
            normalizer(self, self.mode, outer, inner),
        )

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
