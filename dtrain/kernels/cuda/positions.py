"""Scores as (outer, channels, inner) with a class label for each (outer, inner), as losses see them."""

from __future__ import annotations

from math import prod
from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import Argument, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.label_fault import LabelFault
from dtrain.kernels.cuda.launch import Kernels
from dtrain.kernels.cuda.totals import Totals
from dtrain.kernels.normalizer import Normalizer


@final
class Scores:
    """The softmax of scores over one axis."""

    def __init__(self, backend: CudaBackend, axis: int) -> None:
        self.kernels: Kernels = backend.kernels("softmax.cu")
        self._axis = axis

    def sizes(self, shape: Shape) -> tuple[int, int, int]:
        """(positions, channels, inner)."""
        outer, channels, inner = prod(shape[: self._axis]), shape[self._axis], prod(shape[self._axis + 1 :])
        return outer * inner, channels, inner

    def softmax(self, scores: SyncedArray, prob: SyncedArray) -> None:
        """Both may be one array."""
        count, channels, inner = self.sizes(scores.shape)
        if inner == 1:
            self.kernels.rows("softmax_rows", count, channels, read(scores), write(prob))
        else:
            self.kernels.each("softmax_positions", count, read(scores), write(prob), channels, inner)


@final
class Positions:
    """What operators on labelled scores share: sizes, and totals with a check of the labels."""

    def __init__(
        self, backend: CudaBackend, axis: int, ignore_label: int | None, normalizer: Normalizer
    ) -> None:
        self._scores = Scores(backend, axis)
        self._ignore_label = ignore_label
        self._fault = LabelFault(backend, ignore_label)
        self._totals = Totals(backend, "softmax.cu", normalizer, self._fault)
        self.kernels = self._scores.kernels
        self.sizes = self._scores.sizes
        self.softmax = self._scores.softmax
        self.slope = self._totals.slope
        self.counts = self._totals.counts
        self.check = self._fault.check

    def ignoring(self) -> tuple[int, np.int64]:
        """Whether a label is ignored, and which."""
        return int(self._ignore_label is not None), np.int64(self._ignore_label or 0)

    def total(
        self,
        name: str,
        shape: Shape,
        quotient: SyncedArray,
        values: SyncedArray,
        labels: SyncedArray,
        *args: Argument,
    ) -> None:
        """As Totals.run: of `values` with scores of this shape."""
        count, channels, inner = self.sizes(shape)
        sides = read(values), read(labels)
        self._totals.run(name, count, quotient, *sides, *args, labels=labels, classes=channels, inner=inner)
