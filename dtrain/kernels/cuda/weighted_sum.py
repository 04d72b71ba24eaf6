"""The loss of a net: the sum over its losses, each multiplied by its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.launch import THREADS


@final
class WeightedSum:
    """total () <- factor * sum of values[i] * weights[i], or that added to it; arrays of any shapes."""

    def __init__(self, backend: CudaBackend) -> None:
        self._kernels = backend.kernels("weighted_sum.cu")
        self.implementation = "cuda"

    def forward(
        self,
        values: Sequence[SyncedArray],
        weights: Sequence[SyncedArray],
        total: SyncedArray,
        factor: float,
        add: bool = False,
    ) -> None:
        if not add:
            total.clear()
        for value, weight in zip(values, weights, strict=True):
            sides = read(value), read(weight), update(total)
            self._kernels.launch("weighted_sum", (1,), (THREADS,), value.size, *sides, float(factor))
