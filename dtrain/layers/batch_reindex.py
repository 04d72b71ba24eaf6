"""BatchReindex: images of a batch, chosen and repeated by index. Source: Caffe's BatchReindexLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.errors import DataError
from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.no_gradient import refuse_gradient
from dtrain.layers.sharing import refuse_in_place


@final
class BatchReindex(Layer):
    """bottom[0] (N, ...), bottom[1] (M,) of indices into axis 0 -> top[0] (M, ...)."""

    type_name = "BatchReindex"
    num_bottoms = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if not bottom[0].shape:
            raise self.bad_shape("bottom[0]", "at least 1 axis (N, ...)", bottom[0].shape)
        if len(bottom[1].shape) != 1:
            raise self.bad_shape("bottom[1] (indices)", "1 axis", bottom[1].shape)
        top[0].reshape((bottom[1].shape[0], *bottom[0].shape[1:]))
        self.op = self.ops.BatchReindex(bottom[0].data, bottom[1].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        try:
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data)
        except DataError as error:
            raise DataError(str(self.error(str(error)))) from None

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        refuse_gradient(self, propagate_down, 1)
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[1].data, bottom[0].diff)

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
