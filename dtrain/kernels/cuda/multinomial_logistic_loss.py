"""The multinomial logistic loss of given probabilities: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.multinomial_logistic_loss import LEAST_PROBABILITY
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.label_fault import LabelFault
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class MultinomialLogisticLoss:
    """probabilities (N, classes...) and N labels -> the sum of -log p[label], divided."""

    def __init__(self, backend: CudaBackend, shape: Shape, normalizer: Normalizer) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._fault = LabelFault(backend, None)
        self._totals = Totals(backend, "losses.cu", normalizer, self._fault)
        self.implementation = "cuda"

    def forward(self, prob: SyncedArray, labels: SyncedArray, loss: SyncedArray) -> None:
        num = prob.shape[0]
        classes = prob.size // max(num, 1)
        args = read(prob), read(labels), classes, np.float64(LEAST_PROBABILITY)
        self._totals.run("logistic_forward", num, loss, *args, labels=labels, classes=classes)

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._fault.check()

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, prob_diff: SyncedArray
    ) -> None:
        """dp[label] = -scale / p[label], zero elsewhere."""
        classes = prob.size // max(prob.shape[0], 1)
        sides = read(prob), read(labels), write(prob_diff)
        settings = classes, LEAST_PROBABILITY, *self._totals.slope(loss_diff)
        self._kernels.each("logistic_backward", prob.size, *sides, *settings)
