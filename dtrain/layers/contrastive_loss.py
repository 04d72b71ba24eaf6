"""ContrastiveLoss: pairs of features that are to lie close together or a margin apart.

Source: Caffe's ContrastiveLossLayer; the legacy version takes the margin from the squared distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.normalizer import Normalizer
from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.loss import check_same_batch
from dtrain.layers.no_gradient import refuse_gradient


@final
class ContrastiveLoss(Layer):
    """bottom[0] and bottom[1] features (N, C), bottom[2] N flags (0: dissimilar) -> top[0] the loss."""

    type_name = "ContrastiveLoss"
    num_bottoms = Count(3, 3)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """There is nothing to keep."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        a, b, similar = bottom
        if a.count != b.count:
            raise self.bad_shape("bottom[1]", f"the {a.count} values of bottom[0] {a.shape}", b.shape)
        if similar.count != a.shape[0]:
            raise self.bad_shape("bottom[2]", f"one flag per pair ({a.shape[0]})", similar.shape)
        for i, blob in enumerate((a, b)):
            if any(extent != 1 for extent in blob.shape[2:]):
                raise self.bad_shape(f"bottom[{i}]", "a single value from axis 2 on", blob.shape)
        param = self.spec.contrastive_loss_param
        divisor = Normalizer(float(a.shape[0]))
        self.op = self.ops.ContrastiveLoss(param.margin, param.legacy_version, a.shape, divisor)
        top[0].reshape(())

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(*(blob.data for blob in bottom), top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 2)
        self.op.backward(
            bottom[0].data,
            bottom[1].data,
            bottom[2].data,
            top[0].diff,
            bottom[0].diff if propagate_down[0] else None,
            bottom[1].diff if propagate_down[1] else None,
        )

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2
