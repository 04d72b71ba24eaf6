"""ArgMax: the top_k largest values of each image, or along an axis. Source: Caffe's ArgMaxLayer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.layers.sharing import refuse_in_place


@final
class ArgMax(Layer):
    """bottom[0] (N, ...) -> top[0]; there is no gradient.

    Without `axis`: (N, 1, top_k, 1...) indices into the image, or (N, 2, top_k, 1...) indices and values
    with out_max_val. With `axis`: the bottom's shape with top_k there, of indices, or of values.
    """

    type_name = "ArgMax"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        param = self.spec.argmax_param
        axis: int | None = None
        if param.HasField("axis"):
            axis = self.axis(param.axis, len(shape), "argmax_param", "axis")
            extent = shape[axis]
            out = (*shape[:axis], param.top_k, *shape[axis + 1 :])
        else:
            if not shape:
                raise self.bad_shape("bottom[0]", "at least 1 axis", shape)
            extent = math.prod(shape[1:])
            ones = (1,) * (max(len(shape), 3) - 3)
            out = (shape[0], 2 if param.out_max_val else 1, param.top_k, *ones)
        if not 1 <= param.top_k <= extent:
            raise self.bad_param(
                ("argmax_param", "top_k"), f"in [1, {extent}], the values to choose from", param.top_k
            )
        top[0].reshape(out)
        self.op = self.ops.ArgMax(axis, param.top_k, param.out_max_val, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 0)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return False
