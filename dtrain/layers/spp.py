"""SPP: pool an image at 1 x 1, 2 x 2, 4 x 4 ... bins, so that images of any size give as many values.

Source: Caffe's SPPLayer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.window import Axes, PoolingWindow
from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place
from dtrain.proto import dtrain_pb2 as pb


@final
class SPP(Layer):
    """bottom[0] (N, C, H, W) -> top[0] (N, C (1 + 4 + 16 + ...)), or (N, C, 1, 1) for a pyramid of height 1.

    A level has fewer bins where the last of them would lie in the padding.
    """

    type_name = "SPP"
    param_name = "spp_param"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        param = self.spec.spp_param
        if param.pyramid_height < 1:
            raise self.bad_param(("spp_param", "pyramid_height"), "at least 1", param.pyramid_height)
        self.method = pb.SPPParameter.PoolMethod.Name(param.pool)
        refuse_in_place(self, bottom, top)

    def _window(self, level: int, image: Axes) -> PoolingWindow:
        """2^level bins along each axis, together as large as the image or, padded on both sides, larger."""
        bins = 2**level
        kernel = tuple(-(-extent // bins) for extent in image)
        pad = tuple((k * bins - extent + 1) // 2 for k, extent in zip(kernel, image, strict=True))
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise self.bad_param(
                ("spp_param", "pyramid_height"), f"low enough for an image of {image}", level + 1
            )
        if any(pad) and self.method == "STOCHASTIC":
            raise self.bad_shape(
                "bottom[0]", f"height and width divisible by {bins} for pool STOCHASTIC", image
            )
        return PoolingWindow(method=self.method, kernel=kernel, stride=kernel, pad=pad)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape = bottom[0].shape
        if len(shape) != 4 or min(shape[2:]) < 1:
            raise self.bad_shape("bottom[0]", "4 axes (N, C, H, W), the image not empty", shape)
        height: int = self.spec.spp_param.pyramid_height
        windows = [self._window(level, shape[2:]) for level in range(height)]
        if height == 1:
            top[0].reshape((*shape[:2], *windows[0].pooled(shape[2:])))
        else:
            bins = 0
            for window in windows:
                h, w = window.pooled(shape[2:])
                bins += h * w
            top[0].reshape((shape[0], shape[1] * bins))
        self.op = self.ops.SPP(windows, self.is_training, bottom[0].data, top[0].data)

    def refresh(self) -> None:
        if self.method == "STOCHASTIC":
            self.op.draw(self.random_key(), self.scope.rank, self.scope.size)

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.refresh()
        self.op.forward(bottom[0].data, top[0].data)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            if self.method == "STOCHASTIC" and not self.is_training:
                raise self.bad_param("phase", "TRAIN for backward through pool STOCHASTIC", "TEST")
            self.op.backward(top[0].diff, bottom[0].diff)
