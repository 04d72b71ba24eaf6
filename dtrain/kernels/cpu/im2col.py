"""Image to columns and back, over any number of spatial axes.

Columns are (channels * prod(kernel), prod(out)), rows ordered channel, then kernel position.
"""

from __future__ import annotations

from itertools import product
from typing import Any, final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.window import ConvolutionWindow


def _taps(window: ConvolutionWindow, out: Shape) -> list[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Each kernel position with the slice of the padded image that it meets over all outputs."""
    return [
        (
            position,
            tuple(
                slice(k * d, k * d + s * (o - 1) + 1, s)
                for k, d, s, o in zip(position, window.dilation, window.stride, out, strict=True)
            ),
        )
        for position in product(*map(range, window.kernel))
    ]


def im2col(image: Plain, window: ConvolutionWindow) -> Plain:
    """(C, *spatial) -> (C * prod(kernel), prod(out))."""
    out = window.convolved(image.shape[1:])
    padded = np.pad(image, [(0, 0), *((p, p) for p in window.pad)])
    columns = np.empty((image.shape[0], *window.kernel, *out), image.dtype)
    for position, cut in _taps(window, out):
        columns[(slice(None), *position)] = padded[(slice(None), *cut)]
    return columns.reshape(image.shape[0] * int(np.prod(window.kernel)), -1)


def col2im(columns: Plain, shape: Shape, window: ConvolutionWindow) -> Plain:
    """The transpose of im2col: sums what im2col copied; `shape` is (C, *spatial)."""
    out = window.convolved(shape[1:])
    padded = np.zeros(
        (shape[0], *(e + 2 * p for e, p in zip(shape[1:], window.pad, strict=True))), columns.dtype
    )
    parts = columns.reshape(shape[0], *window.kernel, *out)
    for position, cut in _taps(window, out):
        padded[(slice(None), *cut)] += parts[(slice(None), *position)]
    inside: tuple[Any, ...] = tuple(slice(p, p + e) for e, p in zip(shape[1:], window.pad, strict=True))
    return padded[(slice(None), *inside)]


@final
class Im2col:
    """bottom (N, C, *spatial) -> top (N, C * prod(kernel), *out)."""

    def __init__(
        self, backend: Backend, window: ConvolutionWindow, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self.window = window
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        for image, out in zip(bottom.plain(), top.plain_overwrite(), strict=True):
            out[...] = im2col(image, self.window).reshape(out.shape)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        for diff, out in zip(top_diff.plain(), bottom_diff.plain_overwrite(), strict=True):
            out[...] = col2im(diff, out.shape, self.window)
