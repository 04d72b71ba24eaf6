"""Pairs of vectors: similar ones attract each other, others repel each other up to a margin."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.contrastive_loss import EPSILON
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class ContrastiveLoss:
    """a, b (N, channels...) and N flags -> sum of |a - b|^2 / 2 over similar pairs, and over the others of
    max(0, margin - |a - b|)^2 / 2, or in the legacy version max(0, margin - |a - b|^2) / 2; divided."""

    def __init__(
        self, backend: CudaBackend, margin: float, legacy: bool, shape: Shape, normalizer: Normalizer
    ) -> None:
        self._kernels = backend.kernels("losses.cu")
        self._totals = Totals(backend, "losses.cu", normalizer)
        self.margin = float(margin)
        self.legacy = legacy
        self._squared = backend.empty(shape[0])  # distances
        self.implementation = "cuda"

    def _measure(self, a: SyncedArray, b: SyncedArray) -> int:
        """Fills the squared distances; returns the number of channels."""
        num = a.shape[0]
        channels = a.size // max(num, 1)
        self._kernels.rows("squared_distances", num, channels, read(a), read(b), self._squared)
        return channels

    def forward(self, a: SyncedArray, b: SyncedArray, similar: SyncedArray, loss: SyncedArray) -> None:
        self._measure(a, b)
        settings = read(similar), self.margin, int(self.legacy)
        self._totals.run("contrastive_forward", a.shape[0], loss, self._squared, *settings)

    def backward(
        self,
        a: SyncedArray,
        b: SyncedArray,
        similar: SyncedArray,
        loss_diff: SyncedArray,
        a_diff: SyncedArray | None,
        b_diff: SyncedArray | None,
    ) -> None:
        """da = scale (a - b) for similar pairs, the opposite direction within the margin; db = -da."""
        channels = self._measure(a, b)
        settings = channels, self.margin, int(self.legacy), EPSILON, *self._totals.slope(loss_diff)
        for own, other, diff in ((a, b, a_diff), (b, a, b_diff)):
            if diff is not None:
                sides = read(own), read(other), self._squared, read(similar), write(diff)
                self._kernels.each("contrastive_backward", a.size, *sides, *settings)
