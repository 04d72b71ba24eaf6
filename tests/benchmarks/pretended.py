"""A worker whose steps sleep: `python -m tests.benchmarks.pretended STEP_MS`.

A case's net tells it what to do wrong: "broken" raises, "full" runs out of memory, "stuck" never answers,
"dead" ends at once.
"""

from __future__ import annotations

import os
import sys
import time
from typing import final

from benchmarks.card_worker import Busy, Case, Subject, serve

MEMORY_BYTES = 3 * 2**30


@final
class Pretended(Subject):
    """Takes `step_s` a step, of which a card would work nine tenths."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._is_built = False

    def build(self, case: Case, way: str) -> str:
        if case.net == "broken":
            raise ValueError("no such\nnet")
        if case.net == "full":
            raise MemoryError("the card is out of memory")
        if case.net == "stuck":
            time.sleep(600)
        if case.net == "dead":
            print("the last words", file=sys.stderr, flush=True)
            os._exit(3)
        print("a library that prints")  # which must not be taken for an answer
        self._is_built = True
        return f"pretended, {way}"

    def step(self, count: int) -> None:
        time.sleep(count * self._step_s)

    def synchronize(self) -> None:
        """Nothing is queued."""

    def busy(self, spin_s: float) -> Busy:
        return Busy(0.9 * self._step_s, True)

    def used_bytes(self) -> int:
        return MEMORY_BYTES if self._is_built else 0

    def pool_bytes(self) -> int:
        return MEMORY_BYTES // 2 if self._is_built else 0

    def notes(self) -> list[str]:
        return ["it pretends"]

    def is_out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def drop(self) -> None:
        self._is_built = False


if __name__ == "__main__":
    serve(Pretended(float(sys.argv[1]) / 1e3))
