"""DepthwiseConvolution: a Convolution whose every channel is a group. Source: MobileNet's Caffe forks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.window import Axes, ConvolutionWindow
from dtrain.layers.convolution import ConvolutionLayer


@final
class DepthwiseConvolution(ConvolutionLayer):
    """Weights (num_output, 1, *kernel); `group`, if given, says the number of channels once more."""

    type_name = "DepthwiseConvolution"

    def read_window(self, num_axes: int) -> ConvolutionWindow:
        window = super().read_window(num_axes)
        if self.spec.convolution_param.HasField("group") and window.group != self.channels:
            raise self.bad_param(
                ("convolution_param", "group"),
                f"absent or the number of channels of bottom[0] ({self.channels})",
                window.group,
            )
        return replace(window, group=self.channels)

    def weights_shape(self) -> Shape:
        return (self.num_output, 1, *self.window.kernel)

    def extent(self, image: Axes) -> Axes:
        return self.window.convolved(image)

    def build(self, x: SyncedArray, y: SyncedArray) -> Any:
        return self.ops.Convolution(self.window, x, self.blobs[0].data, self.bias(), y)
