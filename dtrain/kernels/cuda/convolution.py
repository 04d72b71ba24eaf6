"""Convolution as im2col and a matrix product for each image and group: y = w * x + b."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums
from dtrain.kernels.cuda.lowering import Lowering, Side, multiply
from dtrain.kernels.window import ConvolutionWindow


@final
class Convolution:
    """bottom (N, C, *spatial), weights (O, C / group, *kernel), bias (O,) or None -> top (N, O, *out).

    With `relu` the top is max(y, 0), for a plan that fuses the ReLU layer that follows.
    """

    def __init__(
        self,
        backend: CudaBackend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        relu: bool = False,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("channels.cu")
        self.relu = relu
        self._lowering = low = Lowering(backend, window, bottom.shape[1:])
        self._images, self._channels = top.shape[0], top.shape[1]
        self._groups = g = window.group
        self._shape = (self._channels // g, low.outputs, low.rows // g)
        m, n, k = self._shape
        self._w = Side(0, m * k)
        self._x = Side(low.columns_size, k * n)
        self._y = Side(self._channels * n, m * n)
        self._sums = ChannelSums(backend, self._images, self._channels, n)
        self.implementation = "cuda gemm" if low.is_identity else "cuda im2col + gemm"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        low, backend = self._lowering, self._backend
        w = (read(weights), self._w)
        if low.is_identity:
            products = self._images, self._groups
            multiply(
                backend,
                self._shape,
                (False, False),
                *products,
                w,
                (read(bottom), self._x),
                (write(top), self._y),
            )
        else:
            columns = backend.workspace(low.most_images(self._images) * low.columns_size)
            for first, count in low.chunks(self._images):
                low.to_columns(read(bottom, first * low.image_size), columns, count)
                y = write(top, first * self._y.per_image)
                multiply(
                    backend,
                    self._shape,
                    (False, False),
                    count,
                    self._groups,
                    w,
                    (columns, self._x),
                    (y, self._y),
                )
        if bias is not None or self.relu:
            self._kernels.each(
                "add_bias",
                top.size,
                update(top),
                maybe(read, bias),
                self._channels,
                low.outputs,
                int(self.relu),
            )

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        weights: SyncedArray,
        bottom_diff: SyncedArray | None,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff))
        if weights_diff is not None:
            self._weights_backward(top_diff, bottom, weights_diff)
        if bottom_diff is not None:
            self._bottom_backward(top_diff, weights, bottom_diff)

    def _weights_backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, weights_diff: SyncedArray
    ) -> None:
        """dw += dy columns', summed over the images."""
        low, backend = self._lowering, self._backend
        m, n, k = self._shape
        for first, count in [(0, self._images)] if low.is_identity else low.chunks(self._images):
            x = read(bottom, first * low.image_size)
            if not low.is_identity:
                columns = backend.workspace(count * low.columns_size)
                low.to_columns(x, columns, count)
                x = columns
            dy = read(top_diff, first * self._y.per_image)
            multiply(
                backend,
                (m, k, n),
                (False, True),
                count,
                self._groups,
                (dy, self._y),
                (x, self._x),
                (update(weights_diff), self._w),
                beta=1.0,
            )

    def _bottom_backward(self, top_diff: SyncedArray, weights: SyncedArray, bottom_diff: SyncedArray) -> None:
        """columns = w' dy, then to images."""
        low, backend = self._lowering, self._backend
        m, n, k = self._shape
        for first, count in [(0, self._images)] if low.is_identity else low.chunks(self._images):
            dx = write(bottom_diff, first * low.image_size)
            target = dx if low.is_identity else backend.workspace(count * low.columns_size)
            dy = read(top_diff, first * self._y.per_image)
            multiply(
                backend,
                (k, n, m),
                (True, False),
                count,
                self._groups,
                (read(weights), self._w),
                (dy, self._y),
                (target, self._x),
            )
            if not low.is_identity:
                low.to_images(target, dx, count)
