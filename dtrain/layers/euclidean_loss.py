"""EuclideanLoss: sum (a - b)^2 / (2 N). Source: Caffe's EuclideanLossLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.normalizer import Normalizer
from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.loss import check_same_batch


@final
class EuclideanLoss(Layer):
    """bottom[0] and bottom[1] (N, ...) with as many values -> top[0]; both bottoms get gradients."""

    type_name = "EuclideanLoss"
    num_bottoms = TWO
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There are no parameters."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        if bottom[0].count != bottom[1].count:
            raise self.bad_shape(
                "bottom[1]",
                f"as many values as bottom[0] {bottom[0].shape} ({bottom[0].count})",
                f"{bottom[1].count} {bottom[1].shape}",
            )
        self.op = self.ops.EuclideanLoss(bottom[0].shape, Normalizer(float(bottom[0].shape[0])))
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, bottom[1].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.op.backward(
            bottom[0].data,
            bottom[1].data,
            top[0].diff,
            bottom[0].diff if propagate_down[0] else None,
            bottom[1].diff if propagate_down[1] else None,
        )
