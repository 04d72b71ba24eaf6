"""The worker's side of a timing on a card: a process that builds a training step, runs it and drops it.

One JSON object a line goes in and one comes out: {"do": "build", "case": ..., "way": ...}, {"do": "time",
"seconds": ...}, {"do": "drop"}; the answer is {"ok": ...}, or {"error": ..., "out_of_memory": ...}, after
which the process ends. Whatever libraries print goes to the error output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, final

NETS = {"caffenet": (256, 227), "googlenet": (128, 224), "resnet50": (256, 224)}  # batch, side
PRECISIONS = ("bf16", "tf32", "fp32", "fp16")
WARM_UP_STEPS = 8  # choosing algorithms, compiling and capturing included
BUSY_SAMPLES = 5
SPIN_S = 0.005  # what a card is held beyond three steps, so that a whole step is queued behind


@final
@dataclass(frozen=True)
class Case:
    """One net at one batch size in one precision: "fp32", "tf32", "bf16" or "fp16"."""

    net: str
    batch: int
    precision: str
    side: int = 224  # of the square images
    classes: int = 1000

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the images, (N, C, H, W)."""
        return self.batch, 3, self.side, self.side


@final
@dataclass(frozen=True)
class Busy:
    """Seconds that the card takes for one step, by events around it.

    The step is queued while the card is held by a kernel that only waits, so no gap in which the host
    prepares work is inside. `ahead` is False where the step itself waited for the card: then the host's
    work behind that wait is inside, and the share of the step outside of kernels comes out too small.
    """

    seconds: float
    ahead: bool


class Subject(ABC):
    """A training step of one framework on one card; only `synchronize` has to wait for the card."""

    @abstractmethod
    def build(self, case: Case, way: str) -> str:
        """Make the net, its solver and its input on the card; a line that says what computes."""

    @abstractmethod
    def step(self, count: int) -> None:
        """So many training steps."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for the card."""

    @abstractmethod
    def busy(self, spin_s: float) -> Busy:
        """One step behind a kernel that holds the card for so long."""

    @abstractmethod
    def used_bytes(self) -> int:
        """Of the card's memory, by the driver: total less free, whoever uses it."""

    @abstractmethod
    def pool_bytes(self) -> int:
        """The most that this framework's allocator has held since `build`."""

    @abstractmethod
    def notes(self) -> list[str]:
        """What the framework said of how it runs since `build`."""

    @abstractmethod
    def is_out_of_memory(self, error: Exception) -> bool:
        """Whether the error says so."""

    @abstractmethod
    def drop(self) -> None:
        """Give all memory back."""


@final
class Session:
    """Answers requests about one subject."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._step_s = 0.0
        self._used_bytes = 0  # by what was built, when it was warm
        self._pool_bytes = 0  # at that time

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """What is asked for by "do"."""
        if request["do"] == "build":
            return self.build(Case(**request["case"]), request["way"])
        if request["do"] == "time":
            return self.time(request["seconds"])
        assert request["do"] == "drop", request
        self._subject.drop()
        return {}

    def build(self, case: Case, way: str) -> dict[str, Any]:
        """Build and warm up. Nobody else may take or give memory of the card meanwhile."""
        subject, begin = self._subject, time.perf_counter()
        before = subject.used_bytes()
        told = subject.build(case, way)
        subject.step(WARM_UP_STEPS)
        subject.synchronize()
        built_s = time.perf_counter() - begin
        self._step_s = self._wall_s(3)
        self._used_bytes = subject.used_bytes() - before
        self._pool_bytes = subject.pool_bytes()
        return {"told": told, "built_s": built_s, "notes": subject.notes()}

    def time(self, seconds: float) -> dict[str, Any]:
        """A round: steps back to back by the host's clock, then single steps by the card's."""
        steps = max(2, round(seconds / max(self._step_s, 1e-6)))
        self._subject.step(1)
        self._subject.synchronize()
        wall_s = self._wall_s(steps)
        samples = [self._subject.busy(3 * wall_s + SPIN_S) for _ in range(BUSY_SAMPLES)]
        middle = sorted(samples, key=lambda busy: busy.seconds)[BUSY_SAMPLES // 2]
        grown = max(0, self._subject.pool_bytes() - self._pool_bytes)
        return {
            "steps": steps,
            "wall_s": wall_s,
            "busy": asdict(Busy(middle.seconds, all(busy.ahead for busy in samples))),
            "memory_bytes": self._used_bytes + grown,
            "pool_bytes": self._subject.pool_bytes(),
        }

    def _wall_s(self, steps: int) -> float:
        """Of a step, of so many back to back."""
        begin = time.perf_counter()
        self._subject.step(steps)
        self._subject.synchronize()
        return (time.perf_counter() - begin) / steps


def serve(subject: Subject) -> None:
    """Answer until the input ends or something fails."""
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)
        session = Session(subject)
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"ok": session.answer(json.loads(line))}
            except Exception as error:  # the driver tells it and goes on with another process
                told = f"{type(error).__name__}: {error}"
                answer = {"error": told, "out_of_memory": subject.is_out_of_memory(error)}
            print(json.dumps(answer), file=out, flush=True)
            if "error" in answer:
                return
