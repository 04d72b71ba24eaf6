"""PSROIPooling: the mean in each bin of a region, from channels of its own.

Source: the PSROIPoolingLayer of R-FCN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.loss import locating_data_errors


@final
class PSROIPooling(Layer):
    """bottom[0] (N, output_dim * group_size^2, H, W), bottom[1] regions (R, 5) -> top[0]
    (R, output_dim, group_size, group_size)."""

    type_name = "PSROIPooling"
    num_bottoms = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.psroi_pooling_param
        for name in ("spatial_scale", "output_dim", "group_size"):
            if getattr(param, name) <= 0:
                raise self.bad_param(("psroi_pooling_param", name), "above 0", getattr(param, name))

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.psroi_pooling_param
        maps, regions = bottom[0].shape, bottom[1].shape
        channels = param.output_dim * param.group_size**2
        if len(maps) != 4 or maps[1] != channels:
            raise self.bad_shape("bottom[0]", f"{channels} channels (output_dim x group_size^2)", maps)
        if not regions or bottom[1].count != regions[0] * 5:
            raise self.bad_shape("bottom[1]", "5 values a region (image, x1, y1, x2, y2)", regions)
        top[0].reshape((regions[0], param.output_dim, param.group_size, param.group_size))
        self.op = self.ops.PSROIPooling(
            param.group_size, param.spatial_scale, bottom[0].data, bottom[1].data, top[0].data
        )

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[1].data, bottom[0].diff)
        if propagate_down[1]:
            bottom[1].diff.clear()  # rounded coordinates have no slope

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
