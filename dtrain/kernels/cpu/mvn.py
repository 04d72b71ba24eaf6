"""Mean-variance normalisation: y = (x - mean) / (std + eps) over each channel or each image."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


@final
class MVN:
    """bottom -> top, both seen as rows of consecutive values; both may be one array.

    Without `normalize_variance` only the mean is taken off. Source: Caffe's MVNLayer, whose gradient
    counts eps as nothing beside the deviation.
    """

    def __init__(
        self,
        backend: Backend,
        rows: int,
        normalize_variance: bool,
        eps: float,
        bottom: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.rows = rows
        self.normalize_variance = normalize_variance
        self.eps = eps
        self.in_place = bottom is top
        self.center: Plain | None = None  # (rows, 1) of the last forward pass
        self.deviation: Plain | None = None  # (rows, 1), eps included
        self.normalized: Plain | None = None  # y, kept where the top overwrites the bottom
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        x = bottom.plain().reshape(self.rows, -1)
        y = (top.plain_mutable() if self.in_place else top.plain_overwrite()).reshape(self.rows, -1)
        self.center = x.mean(axis=1, keepdims=True)
        np.subtract(x, self.center, out=y)
        if self.normalize_variance:
            self.deviation = np.sqrt(np.square(y).mean(axis=1, keepdims=True)) + self.eps
            y /= self.deviation
            if self.in_place:
                self.normalized = y.copy()

    def backward(self, top_diff: SyncedArray, bottom: SyncedArray, bottom_diff: SyncedArray) -> None:
        """`bottom_diff` may be `top_diff`."""
        dy = top_diff.plain().reshape(self.rows, -1)
        target = bottom_diff.plain_mutable() if bottom_diff is top_diff else bottom_diff.plain_overwrite()
        dx = target.reshape(self.rows, -1)
        if not self.normalize_variance:
            np.subtract(dy, dy.mean(axis=1, keepdims=True), out=dx)
            return
        assert self.deviation is not None, "forward ran before"
        y = self.normalized
        if y is None:
            assert self.center is not None, "forward ran before"
            y = (bottom.plain().reshape(self.rows, -1) - self.center) / self.deviation
        along = (dy * y).mean(axis=1, keepdims=True)
        np.subtract(dy, dy.mean(axis=1, keepdims=True), out=dx)
        dx -= along * y
        dx /= self.deviation
