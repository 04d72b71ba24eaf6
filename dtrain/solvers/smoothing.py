"""The loss that a display shows: a running mean. Source: Caffe's Solver::UpdateSmoothedLoss."""

from __future__ import annotations

from typing import final


@final
class SmoothedLoss:
    """Mean of the last `window` losses that were added."""

    def __init__(self, window: int) -> None:
        self._window = window
        self.restart()

    def restart(self) -> None:
        """Forget all losses."""
        self._losses: list[float] = []
        self._next = 0
        self.value = 0.0

    def add(self, loss: float) -> None:
        if len(self._losses) < self._window:
            self._losses.append(loss)
            self.value += (loss - self.value) / len(self._losses)
        else:
            self.value += (loss - self._losses[self._next]) / self._window
            self._losses[self._next] = loss
            self._next = (self._next + 1) % self._window
