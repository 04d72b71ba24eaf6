"""One-versus-all hinge: max(0, 1 - d s) with d = 1 for the label's class and -1 for the others."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import class_indices


@final
class HingeLoss:
    """scores (N, classes...) and N labels -> the sum of the hinges, or with `squared` of their squares."""

    def __init__(self, backend: Backend, squared: bool, shape: Shape) -> None:
        self.squared = squared
        self.implementation = "numpy"

    def _signs(self, x: Plain, labels: SyncedArray) -> Plain:
        """d, of x's shape (N, classes)."""
        index, _ = class_indices(labels.plain().reshape(-1), x.shape[1], None)
        signs = np.full_like(x, -1)
        signs[np.arange(len(x)), index] = 1
        return signs

    def forward(self, scores: SyncedArray, labels: SyncedArray) -> float:
        """The sum, not yet divided."""
        x = scores.plain().reshape(scores.shape[0], -1)
        margin = np.maximum(1 - self._signs(x, labels) * x, 0)
        if self.squared:
            np.square(margin, out=margin)
        return float(margin.sum(dtype=np.float64))

    def backward(
        self, scores: SyncedArray, labels: SyncedArray, scores_diff: SyncedArray, scale: float
    ) -> None:
        """ds = -scale d where the hinge is positive; squared, -2 scale d max(0, 1 - d s)."""
        x = scores.plain().reshape(scores.shape[0], -1)
        dx = scores_diff.plain_overwrite().reshape(x.shape)
        signs = self._signs(x, labels)
        margin = np.maximum(1 - signs * x, 0)
        slope = 2 * margin if self.squared else np.sign(margin)
        np.multiply(slope, signs, out=dx)
        dx *= -scale
