"""Inner product: y = x w' + b, every output a weighted sum of all inputs of an image."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class InnerProduct:
    """bottom (M, K), weights (N, K), or (K, N) with `transpose`, bias (N,) or None -> top (M, N).

    With `relu` the top is max(y, 0), for a plan that fuses the ReLU layer that follows.
    """

    def __init__(
        self,
        backend: Backend,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        transpose: bool = False,
        relu: bool = False,
    ) -> None:
        self.transpose = transpose
        self.relu = relu
        self.implementation = "numpy"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        w = weights.plain()
        y = top.plain_overwrite()
        np.matmul(bottom.plain(), w if self.transpose else w.T, out=y)
        if bias is not None:
            y += bias.plain()
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
        dy = top_diff.plain()
        if weights_diff is not None:
            x = bottom.plain()
            weights_diff.plain_mutable()[...] += x.T @ dy if self.transpose else dy.T @ x
        if bias_diff is not None:
            bias_diff.plain_mutable()[...] += dy.sum(axis=0)
        if bottom_diff is not None:
            w = weights.plain()
            np.matmul(dy, w.T if self.transpose else w, out=bottom_diff.plain_overwrite())
