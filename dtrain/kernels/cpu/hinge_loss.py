"""One-versus-all hinge: max(0, 1 - d s) with d = 1 for the label's class and -1 for the others."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer


@final
class HingeLoss:
    """scores (N, classes...) and N labels -> the sum of the hinges, or of their squares; divided."""

    def __init__(self, backend: Backend, squared: bool, shape: Shape, normalizer: Normalizer) -> None:
        self.squared = squared
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def _signs(self, x: Plain, labels: SyncedArray) -> Plain:
        """d, of x's shape (N, classes)."""
        index, _ = class_indices(labels.plain().reshape(-1), x.shape[1], None)
        signs = np.full_like(x, -1)
        signs[np.arange(len(x)), index] = 1
        return signs

    def forward(self, scores: SyncedArray, labels: SyncedArray, loss: SyncedArray) -> None:
        x = scores.plain().reshape(scores.shape[0], -1)
        margin = np.maximum(1 - self._signs(x, labels) * x, 0)
        if self.squared:
            np.square(margin, out=margin)
        self._normalized.tell(float(margin.sum(dtype=np.float64)), len(x), loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self, scores: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """ds = -scale d where the hinge is positive; squared, -2 scale d max(0, 1 - d s)."""
        x = scores.plain().reshape(scores.shape[0], -1)
        dx = scores_diff.plain_overwrite().reshape(x.shape)
        signs = self._signs(x, labels)
        margin = np.maximum(1 - signs * x, 0)
        slope = 2 * margin if self.squared else np.sign(margin)
        np.multiply(slope, signs, out=dx)
        dx *= -self._normalized.scale(loss_diff)
