"""Upsample: max pooling turned round by its mask, or pixels repeated.

Source: SegNet's UpsampleLayer for two bottoms; of the forks for detection nets for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.errors import DataError
from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Upsample(Layer):
    """bottom[0] (N, C, H, W), perhaps bottom[1], the second top of max pooling -> top[0] (N, C, H', W').

    The size is upsample_h x upsample_w, or scale times the bottom's, less one where pad_out_h or pad_out_w
    says that pooling had padded an odd extent.
    """

    type_name = "Upsample"
    num_bottoms = Count(1, 2)

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        refuse_in_place(self, bottom, top)
        param = self.spec.upsample_param
        self._need_both("upsample_h", "upsample_w")
        self._need_both("scale_h", "scale_w")
        for name in ("scale", "scale_h", "scale_w", "upsample_h", "upsample_w"):
            if param.HasField(name) and getattr(param, name) < 1:
                raise self.bad_param(("upsample_param", name), "at least 1", getattr(param, name))
        self.scale = (
            (param.scale_h, param.scale_w) if param.HasField("scale_h") else (param.scale, param.scale)
        )
        for name, scale in (("pad_out_h", self.scale[0]), ("pad_out_w", self.scale[1])):
            if getattr(param, name) and scale != 2:
                raise self.bad_param(("upsample_param", name), "used with scale 2", f"scale {scale}")
        if len(bottom) == 1 and (param.HasField("upsample_h") or param.pad_out_h or param.pad_out_w):
            raise self.error(
                "upsample_h, upsample_w, pad_out_h and pad_out_w must be used with bottom[1], the mask of a "
                "pooling layer, got one bottom",
                "upsample_param",
            )

    def _need_both(self, one: str, other: str) -> None:
        param = self.spec.upsample_param
        if param.HasField(one) != param.HasField(other):
            raise self.error(f"{one} and {other} must be given together, got one", "upsample_param")

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.upsample_param
        if len(bottom[0].shape) != 4:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W)", bottom[0].shape)
        n, c, h, w = bottom[0].shape
        if param.HasField("upsample_h"):
            out = (param.upsample_h, param.upsample_w)
        else:
            out = (h * self.scale[0] - param.pad_out_h, w * self.scale[1] - param.pad_out_w)
        top[0].reshape((n, c, *out))
        if len(bottom) == 1:
            self.op = self.ops.RepeatPixels(self.scale, bottom[0].data, top[0].data)
            return
        if bottom[1].shape != bottom[0].shape:
            raise self.bad_shape(
                "bottom[1] (the mask)", f"the shape of bottom[0] {bottom[0].shape}", bottom[1].shape
            )
        self.op = self.ops.Unpool(bottom[0].data, bottom[1].data, top[0].data)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom) == 1:
            self.op.forward(bottom[0].data, top[0].data)
            return
        try:
            self.op.forward(bottom[0].data, bottom[1].data, top[0].data)
        except DataError as error:
            raise DataError(str(self.error(str(error)))) from None

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if len(bottom) == 1:
            if propagate_down[0]:
                self.op.backward(top[0].diff, bottom[0].diff)
            return
        if propagate_down[0]:
            self.op.backward(top[0].diff, bottom[1].data, bottom[0].diff)
        if propagate_down[1]:
            bottom[1].diff.clear()  # the mask of a pooling layer counts as needing a gradient
