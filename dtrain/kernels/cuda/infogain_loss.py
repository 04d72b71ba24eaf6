"""Cross entropy of a softmax and a row of a matrix: -sum_l H[label, l] log p[l]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.multinomial_logistic_loss import LEAST_PROBABILITY
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Positions


@final
class InfogainLoss:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner), matrix of C x C values."""

    def __init__(self, backend: CudaBackend, axis: int, ignore_label: int | None) -> None:
        self._positions = Positions(backend, axis, ignore_label)
        self.implementation = "cuda"

    def forward(
        self, scores: SyncedArray, labels: SyncedArray, matrix: SyncedArray, prob: SyncedArray
    ) -> tuple[float, int]:
        """Fills `prob`; returns (summed loss, positions counted)."""
        at = self._positions
        at.softmax(scores, prob)
        _, channels, inner = at.sizes(scores.shape)
        settings = read(matrix), channels, inner, *at.ignoring(), np.float64(LEAST_PROBABILITY)
        return at.total("infogain_loss_forward", scores.shape, prob, labels, *settings)

    def backward(
        self,
        prob: SyncedArray,
        labels: SyncedArray,
        matrix: SyncedArray,
        scores_diff: SyncedArray,
        scale: float,
    ) -> None:
        """dx = scale (p sum_l H[label, l] - H[label]), zero where the label is ignored."""
        at = self._positions
        count, channels, inner = at.sizes(prob.shape)
        sides = read(prob), read(labels), read(matrix), write(scores_diff)
        settings = channels, inner, *at.ignoring(), float(scale)
        at.kernels.each("infogain_loss_backward", count, *sides, *settings)
