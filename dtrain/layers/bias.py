"""Bias: y = x + b, the bias being the same along some axes. Source: Caffe's BiasLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.broadcast import first_axis, param_shape
from dtrain.layers.layer import Blob, Blobs, Count, Layer


@final
class Bias(Layer):
    """bottom[0], and bottom[1] or a parameter as the bias -> top[0]; may run in place."""

    type_name = "Bias"
    num_bottoms = Count(1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) == 1:
            param = self.spec.bias_param
            covered = param_shape(self, "bias_param", param.axis, param.num_axes, bottom[0].shape)
            self.add_blob(covered, param.filler)

    def _bias(self, bottom: Blobs) -> Blob:
        return bottom[1] if len(bottom) > 1 else self.blobs[0]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        bias, shape = self._bias(bottom), bottom[0].shape
        what = "bottom[1]" if len(bottom) > 1 else "the bias"
        axis = first_axis(self, "bias_param", self.spec.bias_param.axis, shape, bias.shape, what)
        top[0].reshape(shape)
        self.op = self.ops.Bias(axis, bottom[0].data, bias.data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, self._bias(bottom).data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        bias = self._bias(bottom)
        wants_bias = propagate_down[1] if len(bottom) > 1 else self.param_propagate_down[0]
        if len(bottom) > 1 and wants_bias:
            bias.diff.clear()  # a bottom's diff is overwritten, and the operator adds
        self.op.backward(
            top[0].diff, bottom[0].diff if propagate_down[0] else None, bias.diff if wants_bias else None
        )
