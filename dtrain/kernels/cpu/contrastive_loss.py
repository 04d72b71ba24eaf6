"""Pairs of vectors: similar ones attract each other, others repel each other up to a margin."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Mask, integers
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.normalizer import Normalizer

EPSILON = 1e-4  # Caffe's, added to the distance where backward divides by it


@final
class ContrastiveLoss:
    """a, b (N, channels...) and N flags -> sum of |a - b|^2 / 2 over similar pairs, and over the others of
    max(0, margin - |a - b|)^2 / 2, or in the legacy version max(0, margin - |a - b|^2) / 2; divided."""

    def __init__(
        self, backend: Backend, margin: float, legacy: bool, shape: Shape, normalizer: Normalizer
    ) -> None:
        self.margin = margin
        self.legacy = legacy
        self.implementation = "numpy"
        self._normalized = Normalized(normalizer)

    def _pairs(self, a: SyncedArray, b: SyncedArray, similar: SyncedArray) -> tuple[Plain, Plain, Mask]:
        """(differences (N, channels), squared distances (N,), which pairs are similar)."""
        x = a.plain().reshape(a.shape[0], -1)
        difference = x - b.plain().reshape(x.shape)
        squared = np.einsum("nc,nc->n", difference, difference)
        return difference, squared, integers(similar.plain().reshape(-1)) != 0

    def forward(self, a: SyncedArray, b: SyncedArray, similar: SyncedArray, loss: SyncedArray) -> None:
        _, squared, together = self._pairs(a, b, similar)
        if self.legacy:
            apart = np.maximum(self.margin - squared, 0)
        else:
            apart = np.square(np.maximum(self.margin - np.sqrt(squared), 0))
        total = float(np.where(together, squared, apart).sum(dtype=np.float64)) / 2
        self._normalized.tell(total, len(squared), loss)

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
        difference, squared, together = self._pairs(a, b, similar)
        scale = self._normalized.scale(loss_diff)
        if self.legacy:
            push = -(self.margin > squared).astype(squared.dtype)
        else:
            distance = np.sqrt(squared)
            push = -np.maximum(self.margin - distance, 0) / (distance + EPSILON)
        slope = difference
        slope *= (np.where(together, 1, push) * scale).astype(slope.dtype)[:, None]
        if a_diff is not None:
            a_diff.plain_overwrite()[...] = slope.reshape(a.shape)
        if b_diff is not None:
            np.negative(slope.reshape(b.shape), out=b_diff.plain_overwrite())
