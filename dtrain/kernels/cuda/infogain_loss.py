"""Cross entropy of a softmax and a row of a matrix: -sum_l H[label, l] log p[l]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.multinomial_logistic_loss import LEAST_PROBABILITY
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Positions
from dtrain.kernels.normalizer import Normalizer


@final
class InfogainLoss:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner), matrix of C x C values.

    The sum is divided.
    """

    def __init__(
        self, backend: CudaBackend, axis: int, ignore_label: int | None, normalizer: Normalizer
    ) -> None:
        self._positions = Positions(backend, axis, ignore_label, normalizer)
        self.implementation = "cuda"

    def forward(
        self,
        scores: SyncedArray,
        labels: SyncedArray,
        matrix: SyncedArray,
        prob: SyncedArray,
        loss: SyncedArray,
    ) -> None:
        at = self._positions
        at.softmax(scores, prob)
        _, channels, inner = at.sizes(scores.shape)
        settings = read(matrix), channels, inner, *at.ignoring(), np.float64(LEAST_PROBABILITY)
        at.total("infogain_loss_forward", scores.shape, loss, prob, labels, *settings)

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._positions.check()

    def backward(
        self,
        prob: SyncedArray,
        labels: SyncedArray,
        matrix: SyncedArray,
        loss_diff: SyncedArray,
        scores_diff: SyncedArray,
    ) -> None:
        """dx = scale (p sum_l H[label, l] - H[label]), zero where the label is ignored."""
        at = self._positions
        count, channels, inner = at.sizes(prob.shape)
        sides = read(prob), read(labels), read(matrix), write(scores_diff)
        settings = channels, inner, *at.ignoring(), *at.slope(loss_diff)
        at.kernels.each("infogain_loss_backward", count, *sides, *settings)
