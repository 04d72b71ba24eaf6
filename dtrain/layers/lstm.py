"""LSTM: long short-term memory over time steps. Source: Caffe's LSTMLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs
from dtrain.layers.recurrent import RecurrentLayer


@final
class LSTM(RecurrentLayer):
    """Blobs W_xc (4 D, ...), b_c (4 D,), W_xc_static if there is a static input, W_hc (4 D, D).

    The gates lie in the order input, forget, output, candidate; the states are h and c.
    """

    type_name = "LSTM"
    gates = 4
    states = ("h", "c")

    def build(self, bottom: Blobs, top: Blobs) -> None:
        self.op = self.ops.LSTM(bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(
            bottom[0].data,
            bottom[1].data,
            self.static(bottom),
            *self.weights(),
            self.start(bottom),
            top[0].data,
            self.end(top),
        )

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        w_x, _, w_static, w_h = self.weights()
        self.op.backward(
            top[0].diff,
            bottom[0].data,
            bottom[1].data,
            self.static(bottom),
            w_x,
            w_static,
            w_h,
            *self.diffs(propagate_down, bottom),
        )
