"""InnerProduct: every output is a weighted sum of all inputs of an image, plus a bias.

Source: Caffe's InnerProductLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class InnerProduct(Layer):
    """bottom[0] (M..., K...) split at `axis` -> top[0] (M..., num_output)."""

    type_name = "InnerProduct"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.inner_product_param
        refuse_in_place(self, bottom, top)
        if param.num_output < 1:
            raise self.bad_param(("inner_product_param", "num_output"), "at least 1", param.num_output)
        self.split = self.axis(param.axis, len(bottom[0].shape), "inner_product_param", "axis")
        self.inputs = int(np.prod(bottom[0].shape[self.split :]))
        self.outputs: int = param.num_output
        self.transpose: bool = param.transpose
        self.fuses_relu = False  # set by a plan that merges the ReLU layer behind
        shape = (self.inputs, self.outputs) if self.transpose else (self.outputs, self.inputs)
        self.add_blob(shape, param.weight_filler)
        if param.bias_term:
            self.add_blob((self.outputs,), param.bias_filler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        inputs = int(np.prod(shape[self.split :]))
        if inputs != self.inputs:
            raise self.bad_shape(
                f"bottom[0] {shape}", f"{self.inputs} values an image from axis {self.split} on", inputs
            )
        images = int(np.prod(shape[: self.split]))
        top[0].reshape((*shape[: self.split], self.outputs))
        self.x = bottom[0].data if len(shape) == 2 else bottom[0].data.view((images, inputs))
        self.y = top[0].data if len(top[0].shape) == 2 else top[0].data.view((images, self.outputs))
        self.dx = bottom[0].diff if len(shape) == 2 else bottom[0].diff.view((images, inputs))
        self.dy = top[0].diff if len(top[0].shape) == 2 else top[0].diff.view((images, self.outputs))
        self.op = self._build(self.fuses_relu)
        self._unfused: Any = None

    def _build(self, relu: bool) -> Any:
        return self.ops.InnerProduct(self.x, self.blobs[0].data, self._bias(), self.y, self.transpose, relu)

    def _bias(self) -> SyncedArray | None:
        return self.blobs[1].data if len(self.blobs) > 1 else None

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        op = self._without_relu() if self.fuses_relu and self.scope.is_partial else self.op
        op.forward(self.x, self.blobs[0].data, self._bias(), self.y)

    def _without_relu(self) -> Any:
        """The operator for a pass that may end before the ReLU that is otherwise fused."""
        if self._unfused is None:
            self._unfused = self._build(False)
        return self._unfused

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        wants = self.param_propagate_down
        self.op.backward(
            self.dy,
            self.x,
            self.blobs[0].data,
            self.dx if propagate_down[0] else None,
            self.blobs[0].diff if wants[0] else None,
            self.blobs[1].diff if len(self.blobs) > 1 and wants[1] else None,
        )
