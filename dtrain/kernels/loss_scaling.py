"""By what gradients are multiplied on their way back, so that 16 bits hold them, and how that follows them.

Source: Micikevicius et al., "Mixed Precision Training", 2018; the numbers are those of PyTorch's GradScaler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, final


@final
class ScaleState(NamedTuple):
    """The scale, and counts of steps: good ones since it changed, skipped ones, skipped ones in a row."""

    scale: float
    good: int = 0
    skipped: int = 0
    in_a_row: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class LossScaling:
    """A step whose gradients are not all numbers is skipped.

    Where the scale `adapts` it then shrinks, down to `least`, and grows after `patience` good steps, up to
    `most`; one that began beyond a bound stays there.
    """

    initial: float
    adapts: bool = True
    growth: float = 2.0
    backoff: float = 0.5
    patience: int = 2000
    least: float = 1.0
    most: float = 2.0**24

    def start(self) -> ScaleState:
        """Before the first step."""
        return ScaleState(self.initial)

    def after(self, state: ScaleState, sum_of_squares: float) -> ScaleState:
        """Behind a step; the sum of squares of its gradients is finite where all of them are."""
        scale, good, skipped, in_a_row = state
        if not math.isfinite(sum_of_squares):
            if self.adapts:
                scale = min(scale, max(scale * self.backoff, self.least))
            return ScaleState(scale, 0, skipped + 1, in_a_row + 1)
        good += 1
        if self.adapts and good >= self.patience:
            scale, good = max(scale, min(scale * self.growth, self.most)), 0
        return ScaleState(scale, good, skipped, 0)
