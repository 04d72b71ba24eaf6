"""Scores as (outer, channels, inner) with a class label for each (outer, inner), as losses see them."""

from __future__ import annotations

from math import prod
from typing import final

import numpy as np

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cpu.labels import class_indices
from dtrain.kernels.cuda.array import Argument, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.totals import Totals


@final
class Positions:
    """What operators on labelled scores share: sizes, the softmax, and totals with a check of the labels."""

    def __init__(self, backend: CudaBackend, axis: int, ignore_label: int | None) -> None:
        self.kernels = backend.kernels("softmax.cu")
        self._axis = axis
        self._ignore_label = ignore_label
        self._totals = Totals(backend, "softmax.cu", 3)

    def sizes(self, shape: Shape) -> tuple[int, int, int]:
        """(positions, channels, inner)."""
        outer, channels, inner = prod(shape[: self._axis]), shape[self._axis], prod(shape[self._axis + 1 :])
        return outer * inner, channels, inner

    def ignoring(self) -> tuple[int, np.int64]:
        """Whether a label is ignored, and which."""
        return int(self._ignore_label is not None), np.int64(self._ignore_label or 0)

    def softmax(self, scores: SyncedArray, prob: SyncedArray) -> None:
        """Over the axis; both may be one array."""
        count, channels, inner = self.sizes(scores.shape)
        if inner == 1:
            self.kernels.rows("softmax_rows", count, channels, read(scores), write(prob))
        else:
            self.kernels.each("softmax_positions", count, read(scores), write(prob), channels, inner)

    def total(
        self, name: str, shape: Shape, values: SyncedArray, labels: SyncedArray, *args: Argument
    ) -> tuple[float, int]:
        """(total, positions counted). DataError, naming the sample, for a label that is no class."""
        count, channels, inner = self.sizes(shape)
        total, counted, wrong = self._totals.run(name, count, read(values), read(labels), *args)
        if wrong:
            class_indices(labels.plain().reshape(count // inner, inner), channels, self._ignore_label)
            raise AssertionError("the host finds the label that the device found wrong")
        return total, int(counted)
