"""One-versus-all hinge: max(0, 1 - d s) with d = 1 for the label's class and -1 for the others."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.label_fault import LabelFault
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class HingeLoss:
    """scores (N, classes...) and N labels -> the sum of the hinges, or of their squares; divided."""

    def __init__(self, backend: CudaBackend, squared: bool, shape: Shape, normalizer: Normalizer) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._fault = LabelFault(backend, None)
        self._totals = Totals(backend, "losses.cu", normalizer, self._fault)
        self.squared = squared
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, labels: SyncedArray, loss: SyncedArray) -> None:
        classes = scores.size // max(scores.shape[0], 1)
        args = read(scores), read(labels), classes, int(self.squared)
        self._totals.run("hinge_forward", scores.size, loss, *args, labels=labels, classes=classes)

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._fault.check()

    def backward(
        self, scores: SyncedArray, labels: SyncedArray, loss_diff: SyncedArray, scores_diff: SyncedArray
    ) -> None:
        """ds = -scale d where the hinge is positive; squared, -2 scale d max(0, 1 - d s)."""
        classes = scores.size // max(scores.shape[0], 1)
        sides = read(scores), read(labels), write(scores_diff)
        settings = classes, int(self.squared), *self._totals.slope(loss_diff)
        self._kernels.each("hinge_backward", scores.size, *sides, *settings)
