"""LRN: divide every value by a power of the energy around it. Source: Caffe's LRNLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


@final
class LRN(Layer):
    """bottom[0] (N, C, H, W) -> top[0] of the same shape; not in place, as Caffe's would be wrong there."""

    type_name = "LRN"
    param_name = "lrn_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.lrn_param
        if param.local_size % 2 == 0:
            raise self.bad_param(("lrn_param", "local_size"), "odd", param.local_size)
        self.region = pb.LRNParameter.NormRegion.Name(param.norm_region)
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom[0].shape) != 4:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W)", bottom[0].shape)
        top[0].reshape(bottom[0].shape)
        param = self.spec.lrn_param
        self.op = self.ops.LRN(
            self.region, param.local_size, param.alpha, param.beta, param.k, bottom[0].data, top[0].data
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].data, top[0].data, bottom[0].diff)
