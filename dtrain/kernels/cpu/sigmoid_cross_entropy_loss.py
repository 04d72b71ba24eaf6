"""Cross entropy of the sigmoid of scores and targets in [0, 1], in one stable step."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Mask, integers
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer


def sigmoid(x: Plain, out: Plain) -> None:
    """1 / (1 + exp(-x)); nothing overflows."""
    small = np.exp(-np.abs(x))
    np.divide(np.where(x >= 0, np.ones_like(small), small), 1 + small, out=out)


@final
class SigmoidCrossEntropyLoss:
    """-t log p - (1 - t) log(1 - p), p = 1 / (1 + exp(-x)), over the targets that are not ignored.

    A target counts as ignored if cut to an integer it is `ignore_label`, as in Caffe.
    """

    def __init__(
        self, backend: Backend, ignore_label: int | None, shape: Shape, normalizer: Normalizer
    ) -> None:
        self.ignore_label = ignore_label
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def _counted(self, targets: Plain) -> Mask | None:
        return None if self.ignore_label is None else integers(targets) != self.ignore_label

    def forward(self, scores: SyncedArray, targets: SyncedArray, loss: SyncedArray) -> None:
        x, t = scores.plain(), targets.plain().reshape(scores.shape)
        losses = np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))
        mask = self._counted(t)
        counted = losses if mask is None else losses[mask]
        self._normalized.tell(float(counted.sum(dtype=np.float64)), counted.size, loss)

    def backward(
        self, scores: SyncedArray, targets: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """dx = scale (p - t), zero where the target is ignored."""
        x, t = scores.plain(), targets.plain().reshape(scores.shape)
        dx = scores_diff.plain_overwrite()
        sigmoid(x, dx)
        dx -= t
        dx *= self._normalized.scale(loss_diff)
        counted = self._counted(t)
        if counted is not None:
            dx[~counted] = 0
