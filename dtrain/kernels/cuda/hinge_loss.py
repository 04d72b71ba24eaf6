"""One-versus-all hinge: max(0, 1 - d s) with d = 1 for the label's class and -1 for the others."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals


@final
class HingeLoss:
    """scores (N, classes...) and N labels -> the sum of the hinges, or with `squared` of their squares."""

    def __init__(self, backend: CudaBackend, squared: bool, shape: Shape) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", 2)
        self.squared = squared
        self.implementation = "cuda"

    def forward(self, scores: SyncedArray, labels: SyncedArray) -> float:
        """The sum, not yet divided."""
        classes = scores.size // max(scores.shape[0], 1)
        sides = read(scores), read(labels)
        loss, wrong = self._totals.run("hinge_forward", scores.size, *sides, classes, int(self.squared))
        if wrong:
            class_indices(labels.plain().reshape(-1), classes, None)
            raise AssertionError("the host finds the label that the device found wrong")
        return loss

    def backward(
        self, scores: SyncedArray, labels: SyncedArray, scores_diff: SyncedArray, scale: float
    ) -> None:
        """ds = -scale d where the hinge is positive; squared, -2 scale d max(0, 1 - d s)."""
        classes = scores.size // max(scores.shape[0], 1)
        sides = read(scores), read(labels), write(scores_diff)
        self._kernels.each("hinge_backward", scores.size, *sides, classes, int(self.squared), float(scale))
