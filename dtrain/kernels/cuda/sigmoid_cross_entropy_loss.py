"""Cross entropy of the sigmoid of scores and targets in [0, 1], in one stable step."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class SigmoidCrossEntropyLoss:
    """-t log p - (1 - t) log(1 - p), p = 1 / (1 + exp(-x)), over the targets that are not ignored.

    A target counts as ignored if cut to an integer it is `ignore_label`, as in Caffe.
    """

    def __init__(
        self, backend: CudaBackend, ignore_label: int | None, shape: Shape, normalizer: Normalizer
    ) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", normalizer)
        self._ignoring = int(ignore_label is not None), np.int64(ignore_label or 0)
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, targets: SyncedArray, loss: SyncedArray) -> None:
        sides = read(scores), read(targets)
        self._totals.run("cross_entropy_forward", scores.size, loss, *sides, *self._ignoring)

    def backward(
        self, scores: SyncedArray, targets: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """dx = scale (p - t), zero where the target is ignored."""
        sides = read(scores), read(targets), write(scores_diff)
        slope = self._totals.slope(loss_diff)
        self._kernels.each("cross_entropy_backward", scores.size, *sides, *self._ignoring, *slope)
