"""Input: blobs whose values come from outside the net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, NONE, Blobs, Layer


@final
class Input(Layer):
    """No bottoms -> tops of the shapes in input_param: one shape for all, or one each."""

    type_name = "Input"
    num_bottoms = NONE
    num_tops = AT_LEAST_ONE

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        shapes = [tuple(shape.dim) for shape in self.spec.input_param.shape]
        if len(shapes) not in (0, 1, len(top)):
            raise self.bad_param(
                ("input_param", "shape"),
                f"given once, {len(top)} times or not at all",
                f"{len(shapes)} times",
            )
        for i, shape in enumerate(shapes):
            if min(shape, default=1) < 1:
                raise self.bad_param(("input_param", "shape", i, "dim"), "at least 1", list(shape))
        for i, shape in enumerate(shapes * len(top) if len(shapes) == 1 else shapes):
            top[i].reshape(shape)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """The tops keep the shapes that whoever fills them gave."""

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        """The values are already there."""

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        """There is nothing to propagate to."""
