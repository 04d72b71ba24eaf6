"""MVN: subtract the mean and divide by the standard deviation. Source: Caffe's MVNLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Layer


@final
class MVN(Layer):
    """bottom[0] (N, C, H, W) -> top[0], each channel of each image by itself, or each whole image.

    Fewer axes are taken as having 1 in the missing places, and so the top has 4. May run in place.
    """

    type_name = "MVN"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        """Everything depends on the shape."""

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) > 4:
            raise self.bad_shape("bottom[0]", "at most 4 axes (N, C, H, W)", shape)
        full = (*shape, *[1] * (4 - len(shape)))
        if full != shape and top[0] is bottom[0]:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W) where the layer runs in place", shape)
        top[0].reshape(full)
        param = self.spec.mvn_param
        rows = full[0] if param.across_channels else full[0] * full[1]
        self.op = self.ops.MVN(rows, param.normalize_variance, param.eps, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].data, bottom[0].diff)
