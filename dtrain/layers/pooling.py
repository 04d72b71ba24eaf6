"""Pooling: reduce every window of a blob to its maximum, its mean or one drawn element.

Source: Caffe's PoolingLayer. The output size rounds up by default, and a last window that would start
beyond the image, in its padding, is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.window import Axes, PoolingWindow
from dtrain.layers.layer import Blobs, Count, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


@final
class Pooling(Layer):
    """bottom[0] (N, C, H, W) -> top[0] (N, C, H', W'); MAX may add top[1], the argmax in the H x W plane."""

    type_name = "Pooling"
    num_tops = Count(1, 2)
    param_name = "pooling_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.pooling_param
        self.method = pb.PoolingParameter.PoolMethod.Name(param.pool)
        self._refuse_dialects(param)
        refuse_in_place(self, bottom, top)
        if len(top) > 1 and self.method != "MAX":
            raise self.error(
                f"a second top (the argmax) must have pool MAX, got {self.method}", "pooling_param"
            )

    def _refuse_dialects(self, param: pb.PoolingParameter) -> None:
        for name in ("pad_3d", "kernel_size_3d", "stride_3d"):
            if getattr(param, name):
                raise self.bad_param(
                    ("pooling_param", name), "absent: pooling is 2-D", list(getattr(param, name))
                )
        if param.axis != 1:
            raise self.bad_param(("pooling_param", "axis"), "1", param.axis)
        if param.torch_pooling:
            raise self.bad_param(("pooling_param", "torch_pooling"), "false; see round_mode: FLOOR", "true")
        if not param.avg_include_pad:
            raise self.bad_param(("pooling_param", "avg_include_pad"), "true, as in Caffe", "false")

    def _axes(self, name: str, low: str, high: str, default: int) -> Axes:
        param = self.spec.pooling_param
        if param.HasField(low) or param.HasField(high):
            if param.HasField(name):
                raise self.bad_param(
                    ("pooling_param", name), f"given as {low} and {high} or as {name}", "both"
                )
            return (getattr(param, low), getattr(param, high))
        value = getattr(param, name) if param.HasField(name) else default
        return (value, value)

    def _window(self, image: Axes) -> PoolingWindow:
        param = self.spec.pooling_param
        pad = self._axes("pad", "pad_h", "pad_w", 0)
        stride = self._axes("stride", "stride_h", "stride_w", 1)
        if param.global_pooling:
            if param.HasField("kernel_size") or param.HasField("kernel_h") or param.HasField("kernel_w"):
                raise self.bad_param(("pooling_param", "kernel_size"), "absent with global_pooling", "one")
            if pad != (0, 0) or stride != (1, 1):
                raise self.bad_param(
                    ("pooling_param", "global_pooling"),
                    "used with pad 0 and stride 1",
                    f"pad {pad}, stride {stride}",
                )
            kernel: Axes = image
        else:
            kernel = self._axes("kernel_size", "kernel_h", "kernel_w", 0)
        if min(kernel) < 1:
            raise self.bad_param(("pooling_param", "kernel_size"), "at least 1", kernel)
        if min(stride) < 1:
            raise self.bad_param(("pooling_param", "stride"), "at least 1", stride)
        if any(pad) and self.method == "STOCHASTIC":
            raise self.bad_param(("pooling_param", "pad"), "0 for pool STOCHASTIC", pad)
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise self.bad_param(("pooling_param", "pad"), f"less than kernel_size {kernel}", pad)
        ceil = param.round_mode == pb.PoolingParameter.CEIL
        return PoolingWindow(method=self.method, kernel=kernel, stride=stride, pad=pad, ceil=ceil)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        if len(bottom[0].shape) != 4:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W)", bottom[0].shape)
        n, c, h, w = bottom[0].shape
        self.window = self._window((h, w))
        out = self.window.pooled((h, w))
        if min(out) < 1:
            raise self.bad_param(
                ("pooling_param", "kernel_size"), f"at most the padded image {h} x {w}", self.window.kernel
            )
        for blob in top:
            blob.reshape((n, c, *out))
        self.argmax = top[1].data if len(top) > 1 else None
        self.op = self.ops.Pooling(self.window, self.is_training, bottom[0].data, top[0].data, self.argmax)

    def refresh(self) -> None:
        if self.method == "STOCHASTIC":
            self.op.draw(self.random_key(), self.scope.rank, self.scope.size)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.refresh()
        self.op.forward(bottom[0].data, top[0].data, self.argmax)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            if self.method == "STOCHASTIC" and not self.is_training:
                raise self.bad_param("phase", "TRAIN for backward through pool STOCHASTIC", "TEST")
            self.op.backward(top[0].diff, bottom[0].diff)
