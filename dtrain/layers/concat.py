"""Concat: blobs put one after the other along one axis. Source: Caffe's ConcatLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, Blobs, Layer
from dtrain.layers.sharing import refuse_in_place, show_as


@final
class Concat(Layer):
    """bottoms, of one shape except at `axis` -> top[0]; a single bottom is passed on without a copy."""

    type_name = "Concat"
    num_bottoms = AT_LEAST_ONE
    param_name = "concat_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        param = self.spec.concat_param
        if param.HasField("axis") and param.HasField("concat_dim"):
            raise self.bad_param(("concat_param", "concat_dim"), "absent where axis is given", "both")
        self.field = "concat_dim" if param.HasField("concat_dim") else "axis"

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        first = bottom[0].shape
        index = getattr(self.spec.concat_param, self.field)
        axis = self.axis(index, len(first), "concat_param", self.field)
        for i, blob in enumerate(bottom):
            others = (*blob.shape[:axis], *blob.shape[axis + 1 :])
            if len(blob.shape) != len(first) or others != (*first[:axis], *first[axis + 1 :]):
                raise self.bad_shape(
                    f"bottom[{i}]", f"the shape of bottom[0] {first} except at axis {axis}", blob.shape
                )
        self.is_copy = len(bottom) > 1
        if not self.is_copy:
            show_as(first, bottom[0], top[0])
            return
        total = sum(blob.shape[axis] for blob in bottom)
        top[0].reshape((*first[:axis], total, *first[axis + 1 :]))
        self.op = self.ops.Concat(axis, [blob.data for blob in bottom], top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.is_copy:
            self.op.forward([blob.data for blob in bottom], top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.is_copy:
            wanted = zip(bottom, propagate_down, strict=True)
            self.op.backward(top[0].diff, [blob.diff if wants else None for blob, wants in wanted])
