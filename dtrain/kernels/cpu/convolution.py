"""Convolution as im2col and one matrix product a group: y = w * x + b."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.im2col import col2im, im2col
from dtrain.kernels.window import ConvolutionWindow


@final
class Convolution:
    """bottom (N, C, *spatial), weights (O, C / group, *kernel), bias (O,) or None -> top (N, O, *out).

    With `relu` the top is max(y, 0), for a plan that fuses the ReLU layer that follows.
    """

    def __init__(
        self,
        backend: Backend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        relu: bool = False,
    ) -> None:
        self.window = window
        self.relu = relu
        self.implementation = "numpy im2col"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        x, y, g = bottom.plain(), top.plain_overwrite(), self.window.group
        w = weights.plain()
        w = w.reshape(g, w.shape[0] // g, -1)
        for image, out in zip(x, y, strict=True):
            columns = im2col(image, self.window).reshape(g, w.shape[2], -1)
            np.matmul(w, columns, out=out.reshape(g, w.shape[1], -1))
        if bias is not None:
            y += bias.plain().reshape(-1, *[1] * len(self.window.kernel))
        if self.relu:
            np.maximum(y, 0, out=y)

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
        g = self.window.group
        dy = top_diff.plain()
        if bias_diff is not None:
            bias_diff.plain_mutable()[...] += dy.sum(axis=(0, *range(2, dy.ndim)))
        if weights_diff is not None:
            dw = weights_diff.plain_mutable()
            total = dw.reshape(g, dw.shape[0] // g, -1)
            for image, diff in zip(bottom.plain(), dy, strict=True):
                columns = im2col(image, self.window).reshape(g, total.shape[2], -1)
                total += diff.reshape(g, total.shape[1], -1) @ columns.transpose(0, 2, 1)
        if bottom_diff is not None:
            w = weights.plain()
            w = w.reshape(g, w.shape[0] // g, -1).transpose(0, 2, 1)
            dx = bottom_diff.plain_overwrite()
            for out, diff in zip(dx, dy, strict=True):
                columns = w @ diff.reshape(g, w.shape[2], -1)
                out[...] = col2im(columns.reshape(-1, columns.shape[2]), out.shape, self.window)
