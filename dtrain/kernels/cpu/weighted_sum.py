"""The loss of a net: the sum over its losses, each multiplied by its weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend


@final
class WeightedSum:
    """total () <- factor * sum of values[i] * weights[i], or that added to it; arrays of any shapes."""

    def __init__(self, backend: Backend) -> None:
        self.implementation = "numpy"

    def forward(
        self,
        values: Sequence[SyncedArray],
        weights: Sequence[SyncedArray],
        total: SyncedArray,
        factor: float,
        add: bool = False,
    ) -> None:
        pairs = zip(values, weights, strict=True)
        found = factor * sum(float((value.plain() * weight.plain()).sum()) for value, weight in pairs)
        if add:
            found += float(total.plain())
        total.plain_overwrite()[...] = found
