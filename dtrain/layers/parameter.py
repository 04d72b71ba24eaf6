"""Parameter: a learned blob as a top. Source: Caffe's ParameterLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import NONE, Blobs, Layer
from dtrain.proto import dtrain_pb2 as pb


@final
class Parameter(Layer):
    """No bottoms -> top[0], a copy of the parameter of the shape in parameter_param.

    A copy, so that a layer in place behind it leaves the parameter alone and its diff adds up.
    """

    type_name = "Parameter"
    num_bottoms = NONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shape = tuple(self.spec.parameter_param.shape.dim)
        if min(shape, default=1) < 1:
            raise self.bad_param(("parameter_param", "shape"), "positive", shape)
        self.add_blob(shape, pb.FillerParameter(type="constant", value=0))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        blob = self.blobs[0]
        top[0].reshape(blob.shape)
        self.copy = self.ops.Sum([1.0], [blob.data], top[0].data)
        self.add = self.ops.Sum([1.0, 1.0], [blob.diff, top[0].diff], blob.diff)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.copy.forward([self.blobs[0].data], top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.param_propagate_down[0]:
            self.add.forward([self.blobs[0].diff, top[0].diff], self.blobs[0].diff)
