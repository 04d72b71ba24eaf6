"""The multinomial logistic loss of a softmax: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Positions


@final
class SoftmaxLoss:
    """-log p[label], summed over the positions whose label is not `ignore_label`.

    As kernels/cpu/softmax_loss.py says.
    """

    def __init__(
        self,
        backend: CudaBackend,
        axis: int,
        ignore_label: int | None,
        weights: Plain | None,
        smoothing: float,
        shape: Shape,
    ) -> None:
        self._positions = Positions(backend, axis, ignore_label)
        self._weights = None if weights is None else backend.constants(weights)
        self.smoothing = float(smoothing)
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray) -> tuple[float, int]:
        """Fills `prob`; returns (summed loss, positions counted)."""
        at = self._positions
        at.softmax(scores, prob)
        _, channels, inner = at.sizes(scores.shape)
        settings = self._weights, channels, inner, *at.ignoring(), np.float64(self.smoothing)
        return at.total("softmax_loss_forward", scores.shape, prob, labels, *settings)

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, bottom_diff: SyncedArray, scale: float
    ) -> None:
        """dscores = scale * (p - target), zero where the label is ignored."""
        at = self._positions
        _, channels, inner = at.sizes(prob.shape)
        sides = read(prob), read(labels), self._weights, write(bottom_diff)
        settings = channels, inner, *at.ignoring(), self.smoothing, float(scale)
        at.kernels.each("softmax_loss_backward", prob.size, *sides, *settings)
