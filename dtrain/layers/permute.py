"""Permute: the axes of a blob in another order. Source: SSD's PermuteLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Permute(Layer):
    """bottom[0] -> top[0], whose axis i is axis order[i] of the bottom; axes not named follow in order."""

    type_name = "Permute"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        given = list(self.spec.permute_param.order)
        if len(set(given)) != len(given) or max(given, default=0) >= max(len(shape), 1):
            raise self.bad_param(
                ("permute_param", "order"), f"distinct axes below {len(shape)}, those of bottom[0]", given
            )
        order = given + [axis for axis in range(len(shape)) if axis not in given]
        top[0].reshape(tuple(shape[axis] for axis in order))
        self.op = self.ops.Permute(order, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
