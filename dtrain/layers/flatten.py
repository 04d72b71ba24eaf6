"""Flatten: the axes from `axis` to `end_axis` become one. Source: Caffe's FlattenLayer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place, show_as


@final
class Flatten(Layer):
    """bottom[0] -> top[0], which shares its data and diff."""

    type_name = "Flatten"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        param = self.spec.flatten_param
        first = self.axis(param.axis, len(shape), "flatten_param", "axis")
        last = self.axis(param.end_axis, len(shape), "flatten_param", "end_axis")
        if last < first:
            raise self.bad_param(("flatten_param", "end_axis"), f"at least axis ({first})", last)
        joined = math.prod(shape[first : last + 1])
        show_as((*shape[:first], joined, *shape[last + 1 :]), bottom[0], top[0])

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """The top already holds the bottom's data."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """The bottom already holds the top's diff."""
