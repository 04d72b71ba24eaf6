"""What a sum is divided by, so that it becomes a loss or a score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Normalizer:
    """A constant, or where there is none the number of positions that count; in either case at least 1."""

    constant: float | None = None

    def divisor(self, counted: int) -> float:
        """For a sum over that many positions."""
        return max(1.0, float(counted) if self.constant is None else self.constant)
