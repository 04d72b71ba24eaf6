"""A stopwatch."""

from __future__ import annotations

import time
from typing import final


@final
class Timer:
    """`start()`, `stop()`, then `ms`."""

    def __init__(self) -> None:
        self._begin = self._end = 0.0

    def start(self) -> None:
        """Begin to measure."""
        self._begin = self._end = time.perf_counter()

    def stop(self) -> None:
        """End the measurement."""
        self._end = time.perf_counter()

    @property
    def ms(self) -> float:
        """Milliseconds between start and stop."""
        return (self._end - self._begin) * 1e3
