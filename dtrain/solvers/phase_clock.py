"""Where an iteration's time goes."""

from __future__ import annotations

import time
from typing import final

from dtrain.metrics.reporter import PhaseSeconds


@final
class PhaseClock:
    """Seconds of each phase since `start`; a phase may be lapped several times."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        self._seconds = dict.fromkeys(PhaseSeconds._fields, 0.0)
        self._last = time.perf_counter()

    def lap(self, phase: str) -> None:
        """The time since the last lap was this phase's."""
        now = time.perf_counter()
        self._seconds[phase] += now - self._last
        self._last = now

    def move(self, seconds: float, old: str, new: str) -> None:
        """So much of the old phase was the new one's."""
        self._seconds[old] -= seconds
        self._seconds[new] += seconds

    def read(self) -> PhaseSeconds:
        return PhaseSeconds(**self._seconds)
