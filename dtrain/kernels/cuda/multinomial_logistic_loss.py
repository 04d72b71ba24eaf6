"""The multinomial logistic loss of given probabilities: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cpu.multinomial_logistic_loss import LEAST_PROBABILITY
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals


@final
class MultinomialLogisticLoss:
    """probabilities (N, classes...) and N labels -> the sum of -log p[label]."""

    def __init__(self, backend: CudaBackend, shape: Shape) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", 2)
        self.implementation = "cuda"

    def forward(self, prob: SyncedArray, labels: SyncedArray) -> float:
        """The sum, not yet divided."""
        num = prob.shape[0]
        classes = prob.size // max(num, 1)
        settings = classes, np.float64(LEAST_PROBABILITY)
        loss, wrong = self._totals.run("logistic_forward", num, read(prob), read(labels), *settings)
        if wrong:
            class_indices(labels.plain().reshape(-1), classes, None)
            raise AssertionError("the host finds the label that the device found wrong")
        return loss

    def backward(self, prob: SyncedArray, labels: SyncedArray, prob_diff: SyncedArray, scale: float) -> None:
        """dp[label] = -scale / p[label], zero elsewhere."""
        classes = prob.size // max(prob.shape[0], 1)
        sides = read(prob), read(labels), write(prob_diff)
        self._kernels.each("logistic_backward", prob.size, *sides, classes, LEAST_PROBABILITY, float(scale))
