"""Pooling by sliding windows: maximum, mean, or one element drawn in proportion to its value."""

from __future__ import annotations

from typing import Any, final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.splitmix import uniform
from dtrain.kernels.window import PoolingWindow


@final
class Pooling:
    """bottom (N, C, H, W) -> top (N, C, H', W'), argmax likewise or None.

    MAX of a window wholly behind the image is the type's lowest number, its argmax -1. AVE divides by the
    window clipped to the padded image. STOCHASTIC in training draws an element with probability
    proportional to its value, in testing takes the value-weighted mean.
    Source: Caffe's PoolingLayer.
    """

    def __init__(
        self,
        backend: Backend,
        window: PoolingWindow,
        training: bool,
        bottom: SyncedArray,
        top: SyncedArray,
        argmax: SyncedArray | None,
    ) -> None:
        self.window = window
        self.training = training
        self.implementation = "numpy"
        h, w = bottom.shape[2:]
        self._drawing = 0, 0, 1  # key, rank, size
        self.index: Any = None  # (N, C, H', W') of the chosen element in the H x W plane
        self._image = (h, w)
        self._divisor = self._window_areas()

    def _window_areas(self) -> Plain:
        """(H', W'): elements of each window inside the padded image."""
        sides = []
        for image, out, k, s, p in zip(
            self._image,
            self.window.pooled(self._image),
            self.window.kernel,
            self.window.stride,
            self.window.pad,
            strict=True,
        ):
            first = np.arange(out) * s - p
            sides.append(np.minimum(first + k, image + p) - first)
        return np.outer(sides[0], sides[1]).astype(np.float64)

    def _windows(self, x: Plain, fill: float) -> Plain:
        """(N, C, H', W', kh, kw), what lies outside the image being `fill`."""
        over = self.window.overhang(self._image)
        pads = [(p, max(o, 0)) for p, o in zip(self.window.pad, over, strict=True)]
        padded = np.pad(x, [(0, 0), (0, 0), *pads], constant_values=fill)
        out = self.window.pooled(self._image)
        sh, sw = self.window.stride
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.window.kernel, axis=(2, 3))
        return windows[:, :, ::sh, ::sw][:, :, : out[0], : out[1]]

    def _plane_index(self, position: Any) -> Any:
        """Index in the H x W plane of a position (row-major) in each window.

        Where all of a window is -inf the position may lie in the padding; the nearest of the image serves.
        """
        kw = self.window.kernel[1]
        rows = np.arange(position.shape[2])[:, None] * self.window.stride[0] - self.window.pad[0]
        cols = np.arange(position.shape[3])[None, :] * self.window.stride[1] - self.window.pad[1]
        row, column = np.maximum(rows + position // kw, 0), np.maximum(cols + position % kw, 0)
        return row * self._image[1] + column

    def _beyond_image(self) -> Any:
        """(H', W'): windows that start behind the image, as a stride above the kernel's extent makes them."""
        out = self.window.pooled(self._image)
        rows, cols = (
            np.arange(o) * s - p >= e
            for o, s, p, e in zip(out, self.window.stride, self.window.pad, self._image, strict=True)
        )
        return rows[:, None] | cols[None, :]

    def draw(self, key: int, rank: int = 0, size: int = 1) -> None:
        """What STOCHASTIC draws in passes that follow; image k of this rank is k * size + rank of the job."""
        self._drawing = key, rank, size

    def forward(self, bottom: SyncedArray, top: SyncedArray, argmax: SyncedArray | None) -> None:
        x, y = bottom.plain(), top.plain_overwrite()
        if self.window.method == "AVE":
            self._windows(x, 0.0).sum(axis=(4, 5), out=y)
            y /= self._divisor.astype(y.dtype)
            return
        if self.window.method == "STOCHASTIC":
            self._stochastic(x, y)
            return
        windows = self._windows(x, -np.inf)
        position = windows.reshape(*windows.shape[:4], -1).argmax(axis=4)
        self.index = self._plane_index(position)
        empty = self._beyond_image()
        self.index[:, :, empty] = 0
        y[...] = np.take_along_axis(
            x.reshape(*x.shape[:2], -1), self.index.reshape(*x.shape[:2], -1), axis=2
        ).reshape(y.shape)
        y[:, :, empty] = np.finfo(y.dtype).min
        self.index[:, :, empty] = -1
        if argmax is not None:
            argmax.plain_overwrite()[...] = self.index

    def _stochastic(self, x: Plain, y: Plain) -> None:
        windows = self._windows(x, 0.0).reshape(*y.shape, -1)
        total = windows.sum(axis=4)
        if not self.training:
            y[...] = (windows**2).sum(axis=4) / np.where(total > 0, total, 1)
            return
        threshold = uniform(*self._drawing, len(y), y[0].size).reshape(y.shape) * total
        position = (windows.cumsum(axis=4) >= threshold[..., None]).argmax(axis=4)
        self.index = self._plane_index(position)
        y[...] = np.take_along_axis(windows, position[..., None], axis=4)[..., 0]

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain(), bottom_diff.plain_overwrite()
        if self.window.method != "AVE":
            planes = np.arange(dx.shape[0] * dx.shape[1]) * (self._image[0] * self._image[1])
            where = self.index.reshape(len(planes), -1) + planes[:, None]
            taken = self.index.reshape(len(planes), -1) >= 0
            dx[...] = np.bincount(where[taken], dy.reshape(where.shape)[taken], dx.size).reshape(dx.shape)
            return
        share = dy / self._divisor.astype(dy.dtype)
        (sh, sw), (ph, pw) = self.window.stride, self.window.pad
        over = self.window.overhang(self._image)
        h, w = self._image
        padded = np.zeros((*dx.shape[:2], h + ph + max(over[0], 0), w + pw + max(over[1], 0)), dx.dtype)
        oh, ow = dy.shape[2:]
        for i in range(self.window.kernel[0]):
            for j in range(self.window.kernel[1]):
                padded[:, :, i : i + sh * (oh - 1) + 1 : sh, j : j + sw * (ow - 1) + 1 : sw] += share
        dx[...] = padded[:, :, ph : ph + h, pw : pw + w]
