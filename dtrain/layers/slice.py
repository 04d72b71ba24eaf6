"""Slice: a blob cut along one axis. Source: Caffe's SliceLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, Blobs, Layer
from dtrain.layers.sharing import refuse_in_place, show_as


@final
class Slice(Layer):
    """bottom[0] -> tops cut at the slice_points, or of equal size; a single top is no copy."""

    type_name = "Slice"
    num_tops = AT_LEAST_ONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        param = self.spec.slice_param
        if param.HasField("axis") and param.HasField("slice_dim"):
            raise self.bad_param(("slice_param", "slice_dim"), "absent where axis is given", "both")
        self.field = "slice_dim" if param.HasField("slice_dim") else "axis"
        if param.slice_point and len(param.slice_point) != len(top) - 1:
            raise self.bad_param(
                ("slice_param", "slice_point"),
                f"given {len(top) - 1} times, one less than the tops, or not at all",
                f"{len(param.slice_point)} times",
            )

    def _ends(self, extent: int, num_tops: int) -> list[int]:
        """Where each top ends on an axis of this extent."""
        points = list(self.spec.slice_param.slice_point)
        if not points:
            if extent % num_tops:
                raise self.error(
                    f"the sliced axis must be a multiple of the {num_tops} tops, got {extent}; slice_point "
                    f"says where to cut otherwise",
                    "slice_param",
                )
            return [extent // num_tops * (i + 1) for i in range(num_tops)]
        if any(a >= b for a, b in zip([0, *points], [*points, extent], strict=True)):
            raise self.bad_param(
                ("slice_param", "slice_point"), f"rising, above 0 and below the axis ({extent})", points
            )
        return [*points, extent]

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        index = getattr(self.spec.slice_param, self.field)
        axis = self.axis(index, len(shape), "slice_param", self.field)
        self.is_copy = len(top) > 1
        if not self.is_copy:
            show_as(shape, bottom[0], top[0])
            return
        ends = self._ends(shape[axis], len(top))
        for blob, start, end in zip(top, [0, *ends[:-1]], ends, strict=True):
            blob.reshape((*shape[:axis], end - start, *shape[axis + 1 :]))
        self.op = self.ops.Slice(axis, bottom[0].data, [blob.data for blob in top])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if self.is_copy:
            self.op.forward(bottom[0].data, [blob.data for blob in top])

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if self.is_copy and propagate_down[0]:
            self.op.backward([blob.diff for blob in top], bottom[0].diff)
