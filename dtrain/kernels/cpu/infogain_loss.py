"""Cross entropy of a softmax and a row of a matrix: -sum_l H[label, l] log p[l]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Index, Mask, class_indices
from dtrain.kernels.cpu.multinomial_logistic_loss import LEAST_PROBABILITY
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.cpu.softmax import rows, softmax
from dtrain.kernels.normalizer import Normalizer


@final
class InfogainLoss:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner), matrix of C x C values.

    The sum is divided.
    """

    def __init__(self, backend: Backend, axis: int, ignore_label: int | None, normalizer: Normalizer) -> None:
        self.axis = axis
        self.ignore_label = ignore_label
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def _labels(self, labels: SyncedArray, p: Plain) -> tuple[Index, Mask]:
        return class_indices(labels.plain().reshape(p.shape[0], p.shape[2]), p.shape[1], self.ignore_label)

    @staticmethod
    def _gains(matrix: SyncedArray, index: Index) -> Plain:
        """The matrix row of every label, (outer, C, inner)."""
        classes = round(matrix.size**0.5)
        return np.moveaxis(matrix.plain().reshape(classes, classes)[index], -1, 1)

    def forward(
        self,
        scores: SyncedArray,
        labels: SyncedArray,
        matrix: SyncedArray,
        prob: SyncedArray,
        loss: SyncedArray,
    ) -> None:
        p = rows(prob.plain_overwrite(), self.axis)
        softmax(rows(scores.plain(), self.axis), p)
        index, counted = self._labels(labels, p)
        logs = np.log(np.maximum(p, LEAST_PROBABILITY), dtype=np.float64)
        losses = -(self._gains(matrix, index) * logs).sum(axis=1)
        self._normalized.tell(float((losses * counted).sum()), int(counted.sum()), loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self,
        prob: SyncedArray,
        labels: SyncedArray,
        matrix: SyncedArray,
        loss_diff: SyncedArray,
        scores_diff: SyncedArray,
    ) -> None:
        """dx = scale (p sum_l H[label, l] - H[label]), zero where the label is ignored."""
        p = rows(prob.plain(), self.axis)
        dx = rows(scores_diff.plain_overwrite(), self.axis)
        index, counted = self._labels(labels, p)
        gains = self._gains(matrix, index)
        np.multiply(p, gains.sum(axis=1, keepdims=True), out=dx)
        dx -= gains
        dx *= (counted * self._normalized.scale(loss_diff))[:, None, :].astype(dx.dtype)
