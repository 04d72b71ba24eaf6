"""SigmoidCrossEntropyLoss: independent probabilities against targets in [0, 1].

Source: Caffe's SigmoidCrossEntropyLossLayer. Unlike SoftmaxWithLoss, it divides by the batch size unless
told otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.loss import check_same_batch, ignore_label, normalization, normalizer
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.proto import dtrain_pb2 as pb


@final
class SigmoidCrossEntropyLoss(Layer):
    """bottom[0] scores (N, ...), bottom[1] as many targets -> top[0] the loss."""

    type_name = "SigmoidCrossEntropyLoss"
    num_bottoms = TWO
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = normalization(self, pb.LossParameter.BATCH_SIZE)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        if bottom[0].count != bottom[1].count:
            raise self.bad_shape(
                "bottom[1] (targets)",
                f"one target per score of bottom[0] {bottom[0].shape} ({bottom[0].count})",
                f"{bottom[1].count} {bottom[1].shape}",
            )
        num = bottom[0].shape[0]
        divisor = normalizer(self, self.mode, num, bottom[0].count // max(num, 1))
        self.op = self.ops.SigmoidCrossEntropyLoss(ignore_label(self), bottom[0].shape, divisor)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, bottom[1].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 1)
        if propagate_down[0]:
            self.op.backward(bottom[0].data, bottom[1].data, top[0].diff, bottom[0].diff)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
