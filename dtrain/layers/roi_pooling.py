"""ROIPooling: the maximum in each bin of a region. Source: the ROIPoolingLayer of Fast R-CNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import TWO, Blobs, Layer
from dtrain.layers.loss import locating_data_errors


@final
class ROIPooling(Layer):
    """bottom[0] (N, C, H, W), bottom[1] regions (R, 5) -> top[0] (R, C, pooled_h, pooled_w)."""

    type_name = "ROIPooling"
    num_bottoms = TWO

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.roi_pooling_param
        sizes = list(param.pooled_size) or [param.pooled_h, param.pooled_w]
        name = "pooled_size" if param.pooled_size else "pooled_h" if param.pooled_h < 1 else "pooled_w"
        if len(sizes) > 2 or min(sizes) < 1:
            raise self.bad_param(("roi_pooling_param", name), "one or two numbers, at least 1", sizes)
        self.pooled = (sizes[0], sizes[-1])
        if param.spatial_scale <= 0:
            raise self.bad_param(("roi_pooling_param", "spatial_scale"), "above 0", param.spatial_scale)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        maps, regions = bottom[0].shape, bottom[1].shape
        if len(maps) != 4:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W)", maps)
        if not regions or bottom[1].count != regions[0] * 5:
            raise self.bad_shape("bottom[1]", "5 values a region (image, x1, y1, x2, y2)", regions)
        top[0].reshape((regions[0], maps[1], *self.pooled))
        scale = self.spec.roi_pooling_param.spatial_scale
        self.op = self.ops.ROIPooling(self.pooled, scale, bottom[0].data, bottom[1].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        with locating_data_errors(self):
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
        if propagate_down[1]:
            bottom[1].diff.clear()  # rounded coordinates have no slope

    def allows_force_backward(self, bottom_index: int) -> bool:
        return bottom_index == 0
