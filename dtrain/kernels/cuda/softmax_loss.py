"""The multinomial logistic loss of a softmax: -log p[label]."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Positions
from dtrain.kernels.normalizer import Normalizer


@final
class SoftmaxLoss:
    """-log p[label], summed over the positions whose label is not `ignore_label`, and divided.

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
        normalizer: Normalizer,
    ) -> None:
        self._positions = Positions(backend, axis, ignore_label, normalizer)
        self._weights = None if weights is None else backend.constants(weights)
        self.smoothing = float(smoothing)
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray, loss: SyncedArray) -> None:
        at = self._positions
        at.softmax(scores, prob)
        _, channels, inner = at.sizes(scores.shape)
        settings = self._weights, channels, inner, *at.ignoring(), np.float64(self.smoothing)
        at.total("softmax_loss_forward", scores.shape, loss, prob, labels, *settings)

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._positions.check()

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, bottom_diff: SyncedArray
    ) -> None:
        """dscores = scale * (p - target), zero where the label is ignored."""
        at = self._positions
        _, channels, inner = at.sizes(prob.shape)
        sides = read(prob), read(labels), self._weights, write(bottom_diff)
        settings = channels, inner, *at.ignoring(), self.smoothing, *at.slope(loss_diff)
        at.kernels.each("softmax_loss_backward", prob.size, *sides, *settings)
