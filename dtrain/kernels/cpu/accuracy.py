"""How many labels are among the highest scores."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cpu.normalized import Normalized
from dtrain.kernels.cpu.softmax import rows
from dtrain.kernels.normalizer import Normalizer


@final
class Accuracy:
    """scores (outer..., C, inner...) with C at `axis`, a label per (outer, inner) -> the share that is right.

    A label is right if fewer than top_k other classes score as high or higher; a score that is no number
    counts as higher. Source of the tie rule: Caffe's AccuracyLayer.
    """

    def __init__(self, backend: Backend, axis: int, top_k: int, ignore_label: int | None) -> None:
        self.axis = axis
        self.top_k = top_k
        self.ignore_label = ignore_label
        self.implementation = "numpy"
        self._normalized = Normalized(Normalizer())
        self._counts = 0, 0

    def forward(
        self,
        scores: SyncedArray,
        labels: SyncedArray,
        share: SyncedArray,
        per_class: SyncedArray | None,
    ) -> None:
        """`share` () of all labels that count; `per_class` (C,) of each class's, 0 where it has none."""
        x = rows(scores.plain(), self.axis)
        outer, classes, inner = x.shape
        index, counted = class_indices(labels.plain().reshape(outer, inner), classes, self.ignore_label)
        own = np.take_along_axis(x, index[:, None, :], axis=1)
        others = np.count_nonzero(~(x < own), axis=1) - 1
        right = (others < self.top_k) & counted
        if per_class is not None:
            of_class = np.bincount(index[counted], minlength=classes)
            right_of_class = np.bincount(index[right], minlength=classes)
            per_class.plain_overwrite()[...] = right_of_class / np.maximum(of_class, 1)
        self._counts = int(right.sum()), int(counted.sum())
        self._normalized.tell(*self._counts, share)

    def counts(self) -> tuple[int, int]:
        """(labels right, labels counted) of the last forward pass, exact."""
        return self._counts

    def check(self) -> None:
        """Forward tells of wrong labels itself."""
