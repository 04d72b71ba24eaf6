"""Reshape: the same values under another shape. Source: Caffe's ReshapeLayer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import Shape
from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place, show_as


@final
class Reshape(Layer):
    """bottom[0] -> top[0], which shares its data and diff.

    `shape` replaces num_axes axes (-1: all) from `axis` on; a dim of 0 copies the bottom's at its place,
    and one dim of -1 is what makes the counts equal.
    """

    type_name = "Reshape"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        param = self.spec.reshape_param
        dims = list(param.shape.dim)
        if dims.count(-1) > 1 or min(dims, default=0) < -1:
            raise self.bad_param(
                ("reshape_param", "shape"), "positive, 0 to copy, or -1 at most once to infer", dims
            )
        if param.num_axes < -1:
            raise self.bad_param(("reshape_param", "num_axes"), "at least 0, or -1 for all", param.num_axes)
        if param.pixelshuffler != 1:
            raise self.bad_param(("reshape_param", "pixelshuffler"), "1", param.pixelshuffler)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        show_as(self._shape(bottom[0].shape), bottom[0], top[0])

    def _shape(self, shape: Shape) -> Shape:
        param = self.spec.reshape_param
        axes = len(shape)
        # -1 is behind the last axis
        first = param.axis if param.axis >= 0 else axes + param.axis + 1
        if not 0 <= first <= axes:
            raise self.bad_param(("reshape_param", "axis"), f"in [{-axes - 1}, {axes}]", param.axis)
        end = axes if param.num_axes == -1 else first + param.num_axes
        if end > axes:
            raise self.bad_param(
                ("reshape_param", "num_axes"), f"at most the {axes - first} axes from axis on", param.num_axes
            )
        dims = list(param.shape.dim)
        for i, dim in enumerate(dims):
            if dim == 0:
                if first + i >= axes:
                    raise self.bad_param(
                        ("reshape_param", "shape"), f"without a 0 beyond the axes of bottom[0] {shape}", dims
                    )
                dims[i] = shape[first + i]
        count = math.prod(shape)
        if -1 in dims:
            known = -math.prod((*shape[:first], *dims, *shape[end:]))
            if known == 0 or count % known:
                raise self.bad_param(
                    ("reshape_param", "shape"),
                    f"such that its other dims divide the {count} values of bottom[0] {shape}",
                    list(param.shape.dim),
                )
            dims[dims.index(-1)] = count // known
        out = (*shape[:first], *dims, *shape[end:])
        if math.prod(out) != count:
            raise self.bad_param(
                ("reshape_param", "shape"),
                f"of as many values as bottom[0] {shape} ({count})",
                f"{math.prod(out)} {out}",
            )
        return out

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """The top already holds the bottom's data."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The bottom already holds the top's diff."""
