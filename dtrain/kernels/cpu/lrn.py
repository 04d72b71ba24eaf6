"""Local response normalisation: y = x s^-beta, s = k + alpha / |window| * (sum of x^2 over the window)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


def window_sum(x: Plain, size: int, axis: int) -> Plain:
    """Sum over `size` neighbours along an axis, centred; what lies outside counts as 0."""
    total = x.copy()
    line, out = np.moveaxis(x, axis, 0), np.moveaxis(total, axis, 0)
    for distance in range(1, size // 2 + 1):
        out[distance:] += line[:-distance]
        out[:-distance] += line[distance:]
    return total


@final
class LRN:
    """bottom (N, C, H, W) -> top of the same shape, another array.

    ACROSS_CHANNELS sums over `size` channels; WITHIN_CHANNEL over size x size positions, with k = 1
    whatever is given. The divisor is the whole window's even where it hangs over the edge, as Caffe pads.
    Source: Caffe's LRNLayer.
    """

    def __init__(
        self,
        backend: Backend,
        region: str,
        size: int,
        alpha: float,
        beta: float,
        k: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        assert bottom is not top
        self.axes = (1,) if region == "ACROSS_CHANNELS" else (2, 3)
        self.size = size
        self.alpha = alpha / size ** len(self.axes)
        self.beta = beta
        self.k = k if region == "ACROSS_CHANNELS" else 1.0
        self.scale: Plain | None = None  # s of the last forward pass
        self.implementation = "numpy"

    def _spread(self, x: Plain) -> Plain:
        for axis in self.axes:
            x = window_sum(x, self.size, axis)
        return x

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x = bottom.plain()
        self.scale = self._spread(x * x)
        self.scale *= self.alpha
        self.scale += self.k
        y = top.plain_overwrite()
        np.power(self.scale, -self.beta, out=y)
        y *= x

    def backward(
        self, top_diff: SyncedArray, bottom: SyncedArray, top: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dx = dy s^-beta - 2 alpha beta / |window| x * (sum of dy x s^(-beta - 1) over the window)."""
        assert self.scale is not None, "forward ran before"
        x, dx = bottom.plain(), bottom_diff.plain_overwrite()
        np.power(self.scale, -self.beta, out=dx)
        dx *= top_diff.plain()
        shared = self._spread(dx * x / self.scale)
        shared *= x
        shared *= 2 * self.alpha * self.beta
        dx -= shared
