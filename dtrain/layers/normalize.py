"""Normalize: L2 norm 1 per position or image, then a learned scale. Source: NormalizeLayer of SSD's Caffe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb


@final
class Normalize(Layer):
    """bottom[0] (N, C, ...) -> top[0] of the same shape, not in place."""

    type_name = "Normalize"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.norm_param
        shape = bottom[0].shape
        if len(shape) < 2:
            raise self.bad_shape("bottom[0]", "at least 2 axes (N, C)", shape)
        if top[0] is bottom[0]:
            raise self.error("top[0] must be a blob of its own, got bottom[0]", "top", 0)
        ones = pb.FillerParameter(type="constant", value=1)
        self.add_blob(
            () if param.channel_shared else (shape[1],),
            param.scale_filler if param.HasField("scale_filler") else ones,
        )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.norm_param
        shape = bottom[0].shape
        if not param.channel_shared and shape[1:2] != self.blobs[0].shape:
            raise self.bad_shape("bottom[0]", f"{self.blobs[0].shape[0]} channels as at set-up", shape)
        top[0].reshape(shape)
        self.op = self.ops.Normalize(
            param.across_spatial, param.eps, bottom[0].data, self.blobs[0].data, top[0].data
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, self.blobs[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            self.blobs[0].data,
            bottom[0].diff if propagate_down[0] else None,
            self.blobs[0].diff if self.param_propagate_down[0] else None,
        )
