"""How many labels are among the highest scores."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.positions import Positions
from dtrain.kernels.normalizer import Normalizer


@final
class Accuracy:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner) -> the share that is right.

    A label is right if fewer than top_k other classes score as high or higher; a score that is no number
    counts as higher. Source of the tie rule: Caffe's AccuracyLayer.
    """

    def __init__(self, backend: CudaBackend, axis: int, top_k: int, ignore_label: int | None) -> None:
        self._backend = backend
        self._positions = Positions(backend, axis, ignore_label, Normalizer())
        self.top_k = top_k
        self._counts: Buffer | None = None  # of each class, then those of it that are right
        self.implementation = "cuda"

    def forward(
        self,
        scores: SyncedArray,
        labels: SyncedArray,
        share: SyncedArray,
        per_class: SyncedArray | None,
    ) -> None:
        """`share` () of all labels that count; `per_class` (C,) of each class's, 0 where it has none."""
        at = self._positions
        _, channels, inner = at.sizes(scores.shape)
        of_class = right_of_class = None
        if per_class is not None:
            if self._counts is None or self._counts.size != 2 * channels:
                self._counts = self._backend.empty(2 * channels, np.int32)
            self._backend.device.clear(self._counts)
            of_class, right_of_class = self._counts[:channels], self._counts[channels:]
        settings = channels, inner, *at.ignoring(), self.top_k
        at.total("accuracy_forward", scores.shape, share, scores, labels, of_class, right_of_class, *settings)
        if per_class is not None:
            at.kernels.each("shares", channels, of_class, right_of_class, write(per_class))

    def counts(self) -> tuple[int, int]:
        """(labels right, labels counted) of the last forward pass, exact; waits for the device."""
        return self._positions.counts()

    def check(self) -> None:
        """DataError if the labels of a pass that was not checked were wrong."""
        self._positions.check()
