"""The focal loss of a softmax: -alpha (1 - p)^gamma log p, p being the label's probability."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.positions import Positions
from dtrain.kernels.normalizer import Normalizer


@final
class FocalLoss:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner); the sum is divided.

    Probabilities below the smallest normal number count as that.
    Source: Lin et al., Focal Loss for Dense Object Detection, with a softmax in the sigmoid's place.
    """

    def __init__(
        self,
        backend: CudaBackend,
        axis: int,
        alpha: float,
        gamma: float,
        ignore_label: int | None,
        normalizer: Normalizer,
    ) -> None:
        self._positions = Positions(backend, axis, ignore_label, normalizer)
        self._shape = np.float64(alpha), np.float64(gamma)
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, labels: SyncedArray, prob: SyncedArray, loss: SyncedArray) -> None:
        at = self._positions
        at.softmax(scores, prob)
        _, channels, inner = at.sizes(scores.shape)
        settings = channels, inner, *at.ignoring(), *self._shape
        at.total("focal_loss_forward", scores.shape, loss, prob, labels, *settings)

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._positions.check()

    def backward(
        self, prob: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """dx = g (prob - one-hot label), g = alpha (1 - p)^gamma (1 - gamma p log p / (1 - p))."""
        at = self._positions
        count, channels, inner = at.sizes(prob.shape)
        settings = channels, inner, *at.ignoring(), *self._shape, *at.slope(loss_diff)
        at.kernels.each("focal_loss_backward", count, read(prob), read(labels), write(scores_diff), *settings)
