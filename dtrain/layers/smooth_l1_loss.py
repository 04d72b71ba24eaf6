"""SmoothL1Loss: a robust distance of boxes. Source: the SmoothL1LossLayer of Fast R-CNN.

Divided by N, or as loss_param says (as in R-FCN, whose positions are (N, H, W)).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.loss import check_same_batch, normalization, normalizer
from dtrain.proto import dtrain_pb2 as pb


@final
class SmoothL1Loss(Layer):
    """bottom[0] and bottom[1] (N, C, ...), bottom[2] inside and bottom[3] outside weights -> top[0]."""

    type_name = "SmoothL1Loss"
    num_bottoms = Count(2, 4)
    makes_missing_tops = True
    loss_by_default = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self.mode = normalization(self, pb.LossParameter.BATCH_SIZE)
        if self.mode == pb.LossParameter.VALID:
            self.mode = pb.LossParameter.FULL  # every position counts
        if self.spec.smooth_l1_loss_param.sigma <= 0:
            raise self.bad_param(
                ("smooth_l1_loss_param", "sigma"), "more than 0", self.spec.smooth_l1_loss_param.sigma
            )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        check_same_batch(self, bottom)
        for i, blob in enumerate(bottom):
            if blob.count != bottom[0].count:
                raise self.bad_shape(
                    f"bottom[{i}]", f"the {bottom[0].count} values of bottom[0] {bottom[0].shape}", blob.shape
                )
        shape = bottom[0].shape
        divisor = normalizer(self, self.mode, shape[0], int(np.prod(shape[2:])))
        self.op = self.ops.SmoothL1Loss(self.spec.smooth_l1_loss_param.sigma, shape, divisor)
        top[0].reshape(())

    @staticmethod
    def _weights(bottom: Blobs) -> tuple[SyncedArray | None, SyncedArray | None]:
        return (
            bottom[2].data if len(bottom) > 2 else None,
            bottom[3].data if len(bottom) > 3 else None,
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, bottom[1].data, *self._weights(bottom), top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        for blob, wanted in zip(bottom[2:], propagate_down[2:], strict=True):
            if wanted:
                blob.diff.clear()  # weights count as constants, even if a layer made them
        self.op.backward(
            bottom[0].data,
            bottom[1].data,
            *self._weights(bottom),
            top[0].diff,
            bottom[0].diff if propagate_down[0] else None,
            bottom[1].diff if propagate_down[1] else None,
        )

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < 2
