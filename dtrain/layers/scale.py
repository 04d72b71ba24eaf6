"""Scale: y = s x, or s x + b, the factor being the same along some axes. Source: Caffe's ScaleLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.broadcast import first_axis, param_shape
from dtrain.layers.layer import Blob, Blobs, Count, Layer
from dtrain.proto import dtrain_pb2 as pb


@final
class Scale(Layer):
    """bottom[0], and bottom[1] or a parameter as the factor -> top[0]; may run in place."""

    type_name = "Scale"
    num_bottoms = Count(1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.scale_param
        if len(bottom) == 1:
            covered = param_shape(self, "scale_param", param.axis, param.num_axes, bottom[0].shape)
            ones = pb.FillerParameter(type="constant", value=1)
            self.add_blob(covered, param.filler if param.HasField("filler") else ones)
        else:
            covered = bottom[1].shape
        self.has_bias: bool = param.bias_term
        if self.has_bias:
            self.add_blob(covered, param.bias_filler)

    def _scale(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def _bias(self) -> Blob | None:
        return self.blobs[-1] if self.has_bias else None

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        scale, bias, shape = self._scale(bottom), self._bias(), bottom[0].shape
        what = "bottom[1]" if len(bottom) > 1 else "the scale"
        axis = first_axis(self, "scale_param", self.spec.scale_param.axis, shape, scale.shape, what)
        if bias is not None and bias.shape != scale.shape:
            raise self.bad_shape("bottom[1]", f"the shape {bias.shape} of set-up", scale.shape)
        top[0].reshape(shape)
        self.op = self.ops.Scale(
            axis, bottom[0].data, scale.data, bias.data if bias is not None else None, top[0].data
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        bias = self._bias()
        keep = len(bottom) > 1 or self.param_propagate_down[0]
        self.op.forward(
            bottom[0].data,
            self._scale(bottom).data,
            bias.data if bias is not None else None,
            top[0].data,
            keep,
        )

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        scale, bias = self._scale(bottom), self._bias()
        wants_scale = propagate_down[1] if len(bottom) > 1 else self.param_propagate_down[0]
        if len(bottom) > 1 and wants_scale:
            scale.diff.clear()  # a bottom's diff is overwritten, and the operator adds
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            scale.data,
            bottom[0].diff if propagate_down[0] else None,
            scale.diff if wants_scale else None,
            bias.diff if bias is not None and self.param_propagate_down[-1] else None,
        )
