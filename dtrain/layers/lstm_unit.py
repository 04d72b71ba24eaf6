"""LSTMUnit: one time step of an LSTM, for nets that unroll it themselves. Source: Caffe's LSTMUnitLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import TWO, Blobs, Count, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class LSTMUnit(Layer):
    """bottom c_prev (1, N, D), gates (1, N, 4 D), cont (1, N) -> top c, h (1, N, D)."""

    type_name = "LSTMUnit"
    num_bottoms = Count(3, 3)
    num_tops = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) != 3 or shape[0] != 1:
            raise self.bad_shape("bottom[0] (c_prev)", "3 axes (1, N, D)", shape)
        gates = (1, shape[1], 4 * shape[2])
        if bottom[1].shape != gates:
            raise self.bad_shape("bottom[1] (gates)", f"shape {gates}", bottom[1].shape)
        if bottom[2].shape != shape[:2]:
            raise self.bad_shape("bottom[2] (cont)", f"shape {shape[:2]}", bottom[2].shape)
        for blob in top:
            blob.reshape(shape)
        self.op = self.ops.LSTMUnit(bottom[0].data, top[0].data, top[1].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, bottom[1].data, bottom[2].data, top[0].data, top[1].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[2]:
            raise self.error("cont must not need a gradient, got propagate_down: true for bottom[2]")
        self.op.backward(
            top[0].diff,
            top[1].diff,
            bottom[0].data,
            bottom[2].data,
            top[0].data,
            bottom[0].diff if propagate_down[0] else None,
            bottom[1].diff if propagate_down[1] else None,
        )

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index != 2
