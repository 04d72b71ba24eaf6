"""Deconvolution as one matrix product a group and columns to image: the transpose of convolution."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.im2col import col2im, im2col
from dtrain.kernels.window import ConvolutionWindow


@final
class Deconvolution:
    """bottom (N, C, *spatial), weights (C, O / group, *kernel), bias (O,) or None -> top (N, O, *out)."""

    def __init__(
        self,
        backend: Backend,
        window: ConvolutionWindow,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self.window = window
        self.implementation = "numpy col2im"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        x, y, g = bottom.plain(), top.plain_overwrite(), self.window.group
        w = weights.plain()
        w = w.reshape(g, w.shape[0] // g, -1).transpose(0, 2, 1)
        for image, out in zip(x, y, strict=True):
            columns = w @ image.reshape(g, w.shape[2], -1)
            out[...] = col2im(columns.reshape(-1, columns.shape[2]), out.shape, self.window)
        if bias is not None:
            y += bias.plain().reshape(-1, *[1] * len(self.window.kernel))

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
        dy, x, g = top_diff.plain(), bottom.plain(), self.window.group
        if bias_diff is not None:
            bias_diff.plain_mutable()[...] += dy.sum(axis=(0, *range(2, dy.ndim)))
        if weights_diff is None and bottom_diff is None:
            return
        w = weights.plain()
        w = w.reshape(g, w.shape[0] // g, -1)
        total = weights_diff.plain_mutable().reshape(w.shape) if weights_diff is not None else None
        dx = bottom_diff.plain_overwrite() if bottom_diff is not None else None
        for n, diff in enumerate(dy):
            columns = im2col(diff, self.window).reshape(g, w.shape[2], -1)
            if total is not None:
                total += x[n].reshape(g, w.shape[1], -1) @ columns.transpose(0, 2, 1)
            if dx is not None:
                np.matmul(w, columns, out=dx[n].reshape(g, w.shape[1], -1))
