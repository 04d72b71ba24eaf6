"""RNN: simple recurrent units over time steps. Source: Caffe's RNNLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs
from dtrain.layers.recurrent import RecurrentLayer


@final
class RNN(RecurrentLayer):
    """Blobs W_xh (D, ...), b_h (D,), W_xh_static if there is a static input, W_hh, W_ho (D, D), b_o (D,)."""

    type_name = "RNN"
    gates = 1
    states = ("h",)

    def add_output_blobs(self) -> None:
        param = self.spec.recurrent_param
        self.add_blob((self.outputs, self.outputs), param.weight_filler)
        self.add_blob((self.outputs,), param.bias_filler)

    def build(self, bottom: Blobs, top: Blobs) -> None:
        self.op = self.ops.RNN(bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(
            bottom[0].data,
            bottom[1].data,
            self.static(bottom),
            *self.weights(),
            *self.start(bottom),
            top[0].data,
            *self.end(top),
        )

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        w_x, _, w_static, w_h, w_out, _ = self.weights()
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            bottom[1].data,
            self.static(bottom),
            w_x,
            w_static,
            w_h,
            w_out,
            *self.diffs(propagate_down, bottom),
        )
