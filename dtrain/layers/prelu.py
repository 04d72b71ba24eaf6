"""PReLU: y = max(x, 0) + slope min(x, 0) with a learned slope. Source: Caffe's PReLULayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb


@final
class PReLU(Layer):
    """bottom[0] (N, C, ...) -> top[0]; one slope a channel, or one for all; may run in place."""

    type_name = "PReLU"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        self._check(bottom)
        param = self.spec.prelu_param
        self.is_shared: bool = param.channel_shared
        quarter = pb.FillerParameter(type="constant", value=0.25)
        shape = () if self.is_shared else (bottom[0].shape[1],)
        self.add_blob(shape, param.filler if param.HasField("filler") else quarter)

    def _check(self, bottom: Blobs) -> None:
        if len(bottom[0].shape) < 2:
            raise self.bad_shape("bottom[0]", "at least 2 axes (N, C, ...)", bottom[0].shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        self._check(bottom)
        if not self.is_shared and bottom[0].shape[1] != self.blobs[0].count:
            raise self.bad_shape("bottom[0]", f"{self.blobs[0].count} channels as at set-up", bottom[0].shape)
        top[0].reshape(bottom[0].shape)
        self.op = self.ops.PReLU(bottom[0].data, self.blobs[0].data, top[0].data)

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
