"""Im2col: the windows of a convolution, written out side by side. Source: Caffe's Im2colLayer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.layers.convolution import read_window
from dtrain.layers.layer import Blobs, Layer
from dtrain.layers.sharing import refuse_in_place


@final
class Im2col(Layer):
    """bottom[0] (..., C, *spatial) -> top[0] (..., C * prod(kernel), *out)."""

    type_name = "Im2col"

    def setup(self, bottom: Blobs, top: Blobs) -> None:
        num_axes = len(bottom[0].shape)
        self.first_axis = self.axis(self.spec.convolution_param.axis, num_axes, "convolution_param", "axis")
        if self.first_axis == num_axes - 1:
            raise self.bad_shape(
                "bottom[0]", f"at least 1 spatial axis behind axis {self.first_axis}", bottom[0].shape
            )
        self.window = read_window(self, num_axes - self.first_axis - 1)
        refuse_in_place(self, bottom, top)

    def reshape(self, bottom: Blobs, top: Blobs) -> None:
        shape, first = bottom[0].shape, self.first_axis
        if len(shape) != first + 1 + len(self.window.kernel):
            raise self.bad_shape("bottom[0]", f"{len(self.window.kernel)} spatial axes as at set-up", shape)
        out = self.window.convolved(shape[first + 1 :])
        if min(out) < 1:
            raise self.bad_param(
                ("convolution_param", "kernel_size"),
                f"at most the padded image of bottom[0] {shape}",
                self.window.kernel,
            )
        channels = shape[first]
        for extent in self.window.kernel:
            channels *= extent
        top[0].reshape((*shape[:first], channels, *out))
        self.x, self.dx = self._images(bottom[0].data), self._images(bottom[0].diff)
        self.y, self.dy = self._images(top[0].data), self._images(top[0].diff)
        self.op = self.ops.Im2col(self.window, self.x, self.y)

    def _images(self, array: SyncedArray) -> SyncedArray:
        """The array with everything before the channels as one axis of images."""
        images = 1
        for extent in array.shape[: self.first_axis]:
            images *= extent
        return array.view((images, *array.shape[self.first_axis :]))

    def forward(self, bottom: Blobs, top: Blobs) -> None:
        self.op.forward(self.x, self.y)

    def backward(self, top: Blobs, propagate_down: Sequence[bool], bottom: Blobs) -> None:
        if propagate_down[0]:
            self.op.backward(self.dy, self.dx)
