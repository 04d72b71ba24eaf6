"""Interp: bilinear resizing that keeps corner pixels at the corners. Source: DeepLab's InterpLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Interp(Layer):
    """bottom[0] (N, C, H, W), perhaps bottom[1] whose height and width are wanted -> top[0] (N, C, H', W').

    Negative pad_beg and pad_end crop first. Without bottom[1] the size is that of shrink_factor, of
    zoom_factor, of one after the other, or height and width.
    """

    type_name = "Interp"
    num_bottoms = Count(1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        param = self.spec.interp_param
        for name in ("pad_beg", "pad_end"):
            if getattr(param, name) > 0:
                raise self.bad_param(
                    ("interp_param", name), "at most 0 (negative crops)", getattr(param, name)
                )
        for name in ("zoom_factor", "shrink_factor"):
            if getattr(param, name) < 1:
                raise self.bad_param(("interp_param", name), "at least 1", getattr(param, name))
        for name in ("height", "width"):
            if param.HasField(name) and getattr(param, name) < 1:
                raise self.bad_param(("interp_param", name), "at least 1", getattr(param, name))
        self.has_factor = param.HasField("zoom_factor") or param.HasField("shrink_factor")
        has_size = param.HasField("height") and param.HasField("width")
        if len(bottom) > 1 and (self.has_factor or param.HasField("height") or param.HasField("width")):
            raise self.error(
                "the size must be given by bottom[1] or by interp_param, got both", "interp_param"
            )
        if len(bottom) == 1 and not self.has_factor and not has_size:
            raise self.error(
                "the size must be given by zoom_factor, shrink_factor, height and width or bottom[1], "
                "got none of them",
                "interp_param",
            )

    def _extent(self, extent: int, size: int) -> int:
        """What an axis becomes: `size`, unless factors are given."""
        if not self.has_factor:
            return size
        shrunk = (extent - 1) // self.spec.interp_param.shrink_factor + 1
        return (shrunk - 1) * self.spec.interp_param.zoom_factor + 1

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        for i, blob in enumerate(bottom):
            if len(blob.shape) != 4:
                raise self.bad_shape(f"bottom[{i}]", "4 axes (N, C, H, W)", blob.shape)
        param = self.spec.interp_param
        n, c, h, w = bottom[0].shape
        crop = (-param.pad_beg, -param.pad_end)
        if min(h, w) <= sum(crop):
            raise self.bad_param(
                ("interp_param", "pad_beg"), f"such that something is left of bottom[0] {h} x {w}", crop
            )
        size = bottom[1].shape[2:] if len(bottom) > 1 else (param.height, param.width)
        out = (self._extent(h - sum(crop), size[0]), self._extent(w - sum(crop), size[1]))
        top[0].reshape((n, c, *out))
        self.op = self.ops.Interp(crop, bottom[0].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[0].diff)
        if len(bottom) > 1 and propagate_down[1]:
            bottom[1].diff.clear()
