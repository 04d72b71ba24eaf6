"""The focal loss of a softmax: -alpha (1 - p)^gamma log p, p being the label's probability."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Index, Mask, class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.cpu.softmax import rows, softmax
from dtrain.kernels.normalizer import Normalizer

EPSILON = 1e-10  # the least 1 - p that backward divides by


@final
class FocalLoss:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner); the sum is divided.

    Probabilities below the smallest normal number count as that.
    Source: Lin et al., Focal Loss for Dense Object Detection, with a softmax in the sigmoid's place.
    """

    def __init__(
        self,
        backend: Backend,
        axis: int,
        alpha: float,
        gamma: float,
        ignore_label: int | None,
        normalizer: Normalizer,
    ) -> None:
        self.axis = axis
        self.alpha = alpha
        self.gamma = gamma
        self.ignore_label = ignore_label
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def _picked(self, p: Plain, labels: SyncedArray) -> tuple[Plain, Plain, Index, Mask]:
        """((outer, inner): the label's probability, its logarithm, the class, whether it counts)."""
        index, counted = class_indices(
            labels.plain().reshape(p.shape[0], p.shape[2]), p.shape[1], self.ignore_label
        )
        own = np.take_along_axis(p, index[:, None, :], axis=1)[:, 0]
        return own, np.log(np.maximum(own, np.finfo(p.dtype).tiny)), index, counted

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray, loss: SyncedArray) -> None:
        p = rows(prob.plain_overwrite(), self.axis)
        softmax(rows(scores.plain(), self.axis), p)
        own, log, _, counted = self._picked(p, labels)
        losses = -self.alpha * (1 - own) ** self.gamma * log
        total = float((losses * counted).sum(dtype=np.float64))
        self._normalized.tell(total, int(counted.sum()), loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """dx = g (prob - one-hot label), g = alpha (1 - p)^gamma (1 - gamma p log p / (1 - p))."""
        p = rows(prob.plain(), self.axis)
        dx = rows(scores_diff.plain_overwrite(), self.axis)
        own, log, index, counted = self._picked(p, labels)
        power = self.alpha * (1 - own) ** self.gamma
        slope = power - self.gamma * power / np.maximum(1 - own, EPSILON) * log * own
        np.copyto(dx, p)
        at = index[:, None, :]
        np.put_along_axis(dx, at, np.take_along_axis(dx, at, axis=1) - 1, axis=1)
        dx *= (slope * counted * self._normalized.scale(loss_diff))[:, None, :].astype(dx.dtype)
