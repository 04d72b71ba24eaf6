"""Filter: the images of a batch whose selector is not zero. Source: Caffe's FilterLayer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import AT_LEAST_ONE, Blobs, Count, Layer
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.layers.sharing import refuse_in_place


@final
class Filter(Layer):
    """bottoms (N, ...), the last one the selector (N, 1...) -> as many tops (images chosen, ...)."""

    type_name = "Filter"
    num_bottoms = Count(2, None)
    num_tops = AT_LEAST_ONE
    reshapes_in_forward = True

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        if len(top) != len(bottom) - 1:
            raise self.error(
                f"the number of tops must be {len(bottom) - 1}, the bottoms without the selector, got "
                f"{len(top)}",
                "top",
            )

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        """The tops get room for every image until forward has seen the selector."""
        selector = bottom[-1].shape
        if not selector or math.prod(selector[1:]) != 1:
            raise self.bad_shape(
                f"bottom[{len(top)}] (the selector)", "one value an image (N, 1...)", selector
            )
        for i, (x, y) in enumerate(zip(bottom, top, strict=False)):
            if x.shape[:1] != selector[:1]:
                raise self.bad_shape(f"bottom[{i}]", f"{selector[0]} images like the selector", x.shape)
            y.reshape(x.shape)
        self.op = self.ops.Filter(bottom[-1].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        chosen = self.op.choose(bottom[-1].data)
        for x, y, weight in zip(bottom, top, self.loss_weights, strict=False):
            y.reshape((chosen, *x.shape[1:]))
            if weight:
                y.diff.plain_overwrite().fill(weight)
            self.op.forward(x.data, y.data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, len(top))
        for x, y, wants in zip(bottom, top, propagate_down, strict=False):
            if wants:
                self.op.backward(y.diff, x.diff)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index < len(self.spec.bottom) - 1
