"""Batch normalisation: x^ = (x - mean) / sqrt(variance + eps) for each channel, y = scale x^ + bias."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


@final
class BatchNorm:
    """bottom (N, C, ...), or (N,) as one channel -> top of the same shape; both may be one array.

    Without `use_global_stats` the batch's own mean and variance serve, and `mean`, `variance` (both (C,))
    and `factor` (1,) gather them: each is multiplied by `fraction` and the batch's is added, 1 to the
    factor, the variance times m / (m - 1) for m values a channel. With it, the gathered ones divided by
    the factor serve. scale, bias (C,) or None. Source: Caffe's BatchNormLayer.
    """

    def __init__(
        self,
        backend: Backend,
        eps: float,
        fraction: float,
        use_global_stats: bool,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.eps = eps
        self.fraction = fraction
        self.use_global_stats = use_global_stats
        self.in_place = bottom is top
        self.center: Plain | None = None  # (C, 1), the mean subtracted in the last forward pass
        self.inverse: Plain | None = None  # (C, 1), 1 / sqrt(variance + eps) of the last forward pass
        self.normalized: Plain | None = None  # x^, kept where the top overwrites the bottom
        self.implementation = "numpy"

    @staticmethod
    def _channels(x: Plain) -> Plain:
        """(N, C, rest) view."""
        return x.reshape(x.shape[0], x.shape[1] if x.ndim > 1 else 1, -1)

    def forward(
        self,
        bottom: SyncedArray,
        mean: SyncedArray,
        variance: SyncedArray,
        factor: SyncedArray,
        scale: SyncedArray | None,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        x = self._channels(bottom.plain())
        y = self._channels(top.plain_mutable() if self.in_place else top.plain_overwrite())
        if self.use_global_stats:
            gathered = float(factor.plain().reshape(-1)[0])
            weight = 0.0 if gathered == 0 else 1 / gathered
            center, spread = mean.plain() * weight, variance.plain() * weight
            np.subtract(x, center[:, None], out=y)
        else:
            center = x.mean(axis=(0, 2))
            np.subtract(x, center[:, None], out=y)
            spread = np.square(y).mean(axis=(0, 2))
            gather((mean, variance, factor), self.fraction, center, spread, x.size // x.shape[1])
        self.center = center[:, None]
        self.inverse = 1 / np.sqrt(spread + self.eps)[:, None]
        y *= self.inverse
        if self.in_place:
            self.normalized = y.copy()
        if scale is not None:
            y *= scale.plain()[:, None]
        if bias is not None:
            y += bias.plain()[:, None]

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray | None,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, which may be `top_diff`; adds to the others; None is not computed."""
        assert self.center is not None and self.inverse is not None, "forward ran before"
        dy = self._channels(top_diff.plain())
        normalized = self.normalized
        if normalized is None and not (self.use_global_stats and scale_diff is None):
            normalized = (self._channels(bottom.plain()) - self.center) * self.inverse
        if bias_diff is not None:
            bias_diff.plain_mutable()[...] += dy.sum(axis=(0, 2))
        if scale_diff is not None:
            assert normalized is not None
            scale_diff.plain_mutable()[...] += (dy * normalized).sum(axis=(0, 2))
        if bottom_diff is None:
            return
        in_place = bottom_diff is top_diff
        dx = self._channels(bottom_diff.plain_mutable() if in_place else bottom_diff.plain_overwrite())
        if scale is None:
            np.copyto(dx, dy)
        else:
            np.multiply(dy, scale.plain()[:, None], out=dx)
        if not self.use_global_stats:
            assert normalized is not None
            along = (dx * normalized).mean(axis=(0, 2))
            dx -= dx.mean(axis=(0, 2))[:, None]
            dx -= along[:, None] * normalized
        dx *= self.inverse


def gather(
    statistics: tuple[SyncedArray, SyncedArray, SyncedArray],
    fraction: float,
    mean: Plain,
    variance: Plain,
    count: int,
) -> None:
    """Fade the gathered (mean, variance, factor) and add a batch's, whose channels have `count` values."""
    unbiased = count / (count - 1) if count > 1 else 1.0
    values: tuple[Plain | int, ...] = (mean, unbiased * variance, 1)
    for moving, value in zip(statistics, values, strict=True):
        stored = moving.plain_mutable()
        stored *= fraction
        stored += value
