"""The multinomial logistic loss of given probabilities: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer

LEAST_PROBABILITY = 1e-20  # Caffe's kLOG_THRESHOLD: what smaller ones count as


@final
class MultinomialLogisticLoss:
    """probabilities (N, classes...) and N labels -> the sum of -log p[label], divided."""

    def __init__(self, backend: Backend, shape: Shape, normalizer: Normalizer) -> None:
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def forward(self, prob: SyncedArray, labels: SyncedArray, loss: SyncedArray) -> None:
        p = prob.plain().reshape(prob.shape[0], -1)
        index, _ = class_indices(labels.plain().reshape(-1), p.shape[1], None)
        picked = np.maximum(p[np.arange(len(p)), index], LEAST_PROBABILITY)
        self._normalized.tell(-float(np.log(picked, dtype=np.float64).sum()), len(p), loss)

    def check(self) -> None:
        """Forward tells of wrong labels itself."""

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, prob_diff: SyncedArray
    ) -> None:
        """dp[label] = -scale / p[label], zero elsewhere."""
        p = prob.plain().reshape(prob.shape[0], -1)
        index, _ = class_indices(labels.plain().reshape(-1), p.shape[1], None)
        dp = prob_diff.plain_overwrite().reshape(p.shape)
        dp.fill(0)
        at = np.arange(len(p)), index
        dp[at] = -self._normalized.scale(loss_diff) / np.maximum(p[at], LEAST_PROBABILITY)
