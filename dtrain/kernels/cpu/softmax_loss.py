"""The multinomial logistic loss of a softmax: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Index, Mask, class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.cpu.softmax import rows, softmax
from dtrain.kernels.normalizer import Normalizer


@final
class SoftmaxLoss:
    """-log p[label], summed over the positions whose label is not `ignore_label`, and divided.

    scores (outer..., C, inner...) with C at `axis`; labels, one class index per (outer, inner), stored
    as numbers of the net's type; prob of the scores' shape. Probabilities below the smallest normal
    number count as that. `weights` (C,) or None multiplies each position's loss by its class's weight;
    `smoothing` s turns the target into 1 - s for the label plus s / C for every class.
    Source: Caffe's SoftmaxWithLossLayer.
    """

    def __init__(
        self,
        backend: Backend,
        axis: int,
        ignore_label: int | None,
        weights: Plain | None,
        smoothing: float,
        shape: Shape,
        normalizer: Normalizer,
    ) -> None:
        self.axis = axis
        self.ignore_label = ignore_label
        self.weights = weights
        self.smoothing = smoothing
        self._normalized = Normalized(normalizer)
        self.implementation = "numpy"

    def _labels(self, labels: SyncedArray, p: Plain) -> tuple[Index, Mask]:
        return class_indices(labels.plain().reshape(p.shape[0], p.shape[2]), p.shape[1], self.ignore_label)

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray, loss: SyncedArray) -> None:
        p = rows(prob.plain_overwrite(), self.axis)
        softmax(rows(scores.plain(), self.axis), p)
        index, counted = self._labels(labels, p)
        tiny = np.finfo(p.dtype).tiny
        picked = np.take_along_axis(p, index[:, None, :], axis=1)[:, 0]
        losses = -np.log(np.maximum(picked, tiny), dtype=np.float64)
        if self.smoothing:
            spread = -np.log(np.maximum(p, tiny), dtype=np.float64).mean(axis=1)
            losses = (1 - self.smoothing) * losses + self.smoothing * spread
        if self.weights is not None:
            losses = losses * self.weights[index]
        self._normalized.tell(float((losses * counted).sum()), int(counted.sum()), loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dscores = scale * (p - target), zero where the label is ignored."""
        scale = self._normalized.scale(loss_diff)
        p = rows(prob.plain(), self.axis)
        dx = rows(bottom_diff.plain_overwrite(), self.axis)
        index, counted = self._labels(labels, p)
        np.subtract(p, self.smoothing / p.shape[1], out=dx)
        at = index[:, None, :]
        np.put_along_axis(dx, at, np.take_along_axis(dx, at, axis=1) - (1 - self.smoothing), axis=1)
        factor = counted * scale if self.weights is None else counted * self.weights[index] * scale
        dx *= factor[:, None, :].astype(dx.dtype)
