"""A loss as the quotient of a sum and a number that forward finds and backward uses."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.normalizer import Normalizer


@final
class Normalized:
    """Divides, both ways; the divisor is that of the last forward pass."""

    def __init__(self, normalizer: Normalizer) -> None:
        self._normalizer = normalizer
        self._divisor = 1.0

    def tell(self, total: float, counted: int, loss: SyncedArray) -> None:
        """loss <- total / divisor, for a sum over so many positions."""
        self._divisor = self._normalizer.divisor(counted)
        loss.plain_overwrite()[...] = total / self._divisor

    def scale(self, loss_diff: SyncedArray) -> float:
        """The slope of the objective along the sum: the loss's own over the divisor."""
        return float(loss_diff.plain().reshape(-1)[0]) / self._divisor
