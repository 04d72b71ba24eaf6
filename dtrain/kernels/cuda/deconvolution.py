"""Deconvolution as a matrix product for each image and group and col2im: the transpose of convolution."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums
from dtrain.kernels.cuda.lowering import Lowering, Side, multiply
from dtrain.kernels.window import ConvolutionWindow


@final
class Deconvolution:
    """bottom (N, C, *spatial), weights (C, O / group, *kernel), bias (O,) or None -> top (N, O, *out)."""

    def __init__(
        self,
        backend: CudaBackend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("channels.cu")
        self._lowering = low = Lowering(backend, window, top.shape[1:])
        self._images, self._channels = top.shape[0], top.shape[1]
        self._inner = low.image_size // max(self._channels, 1)
        self._groups = g = window.group
        self._shape = (bottom.shape[1] // g, low.outputs, low.rows // g)  # of the convolution transposed
        m, n, k = self._shape
        self._w = Side(0, m * k)
        self._columns = Side(low.columns_size, k * n)
        self._x = Side(bottom.shape[1] * n, m * n)
        self._sums = ChannelSums(backend, self._images, self._channels, self._inner)
        self.implementation = "cuda gemm + col2im"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        low, backend = self._lowering, self._backend
        m, n, k = self._shape
        columns = backend.workspace(low.most_images(self._images) * low.columns_size)
        for first, count in low.chunks(self._images):
            x = read(bottom, first * self._x.per_image)
            multiply(
                backend,
                (k, n, m),
                (True, False),
                count,
                self._groups,
                (read(weights), self._w),
                (x, self._x),
                (columns, self._columns),
            )
            low.to_images(columns, write(top, first * low.image_size), count)
        if bias is not None:
            self._kernels.each("add_bias", top.size, update(top), read(bias), self._channels, self._inner, 0)

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
        low, backend = self._lowering, self._backend
        m, n, k = self._shape
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, read(top_diff))
        if weights_diff is None and bottom_diff is None:
            return
        columns = backend.workspace(low.most_images(self._images) * low.columns_size)
        for first, count in low.chunks(self._images):
            low.to_columns(read(top_diff, first * low.image_size), columns, count)
            start = first * self._x.per_image
            if weights_diff is not None:
                multiply(
                    backend,
                    (m, k, n),
                    (False, True),
                    count,
                    self._groups,
                    (read(bottom, start), self._x),
                    (columns, self._columns),
                    (update(weights_diff), self._w),
                    beta=1.0,
                )
            if bottom_diff is not None:
                multiply(
                    backend,
                    self._shape,
                    (False, False),
                    count,
                    self._groups,
                    (read(weights), self._w),
                    (columns, self._columns),
                    (write(bottom_diff, start), self._x),
                )
