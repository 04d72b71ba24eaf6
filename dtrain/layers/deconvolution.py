"""Deconvolution: the transpose of Convolution. Source: Caffe's DeconvolutionLayer."""

from __future__ import annotations

from typing import Any, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.window import Axes
from dtrain.layers.convolution import ConvolutionLayer


@final
class Deconvolution(ConvolutionLayer):
    """Every input adds a weighted window to the output; weights (C, num_output / group, *kernel)."""

    type_name = "Deconvolution"

    def weights_shape(self) -> Shape:
        return (self.channels, self.num_output // self.window.group, *self.window.kernel)

    def extent(self, image: Axes) -> Axes:
        return self.window.deconvolved(image)

    def build(self, x: SyncedArray, y: SyncedArray) -> Any:
        return self.ops.Deconvolution(self.window, x, self.blobs[0].data, self.bias(), y)
