"""A short table of what ran on which card, how it ended and how long it took, kept while tests run."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import pytest

FOLDER = "tests/gpu/"
OUTCOMES = ("passed", "failed", "skipped")
MOST_SLOW, MOST_FAILURES, MOST_TOLD = 8, 40, 240
EVERY_S = 2.0


@final
@dataclass
class Row:
    """All tests of one function."""

    outcomes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(OUTCOMES, 0))
    seconds: float = 0.0


@final
class Table:
    """`file` is rewritten while the tests run, so that a run that is cut off has told what it did."""

    def __init__(self, file: Path | None) -> None:
        self.card = "no card"
        self._file = file
        self._begin = time.monotonic()
        self._written = 0.0
        self._rows: dict[str, Row] = defaultdict(Row)
        self._slowest: list[tuple[float, str]] = []
        self._failures: list[str] = []

    def add(self, report: pytest.TestReport) -> None:
        """One phase of one test."""
        path, _, name = report.nodeid.partition("::")
        if not path.startswith(FOLDER):
            return
        row = self._rows[f"{Path(path).stem.removeprefix('test_')}: {words(name)}"]
        row.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            row.outcomes[report.outcome] += 1
        if report.when == "call":
            self._slowest = sorted([*self._slowest, (report.duration, name)], reverse=True)[:MOST_SLOW]
        if report.failed:
            self._failures.append(f"{path.removeprefix(FOLDER)}::{name}: {reason(report)}")
        now = time.monotonic()
        if report.failed or now - self._written > EVERY_S:
            self.write("the tests go on")
            self._written = now

    def write(self, state: str) -> None:
        if self._file is not None:
            self._file.write_text("\n".join(self.lines(state)) + "\n", encoding="utf-8")

    def lines(self, state: str = "") -> list[str]:
        """Failures first; nothing where no test was run."""
        if not self._rows:
            return []
        told = [self.card]
        told += [f"FAILED {failure}" for failure in self._failures[:MOST_FAILURES]]
        if len(self._failures) > MOST_FAILURES:
            told.append(f"FAILED and {len(self._failures) - MOST_FAILURES} more")
        told.append("slowest: " + ", ".join(f"{name} {seconds:.1f} s" for seconds, name in self._slowest))
        told.append(f"{'passed':>7}{'failed':>7}{'skipped':>8}{'s':>7}  test")
        for name, row in self._rows.items():
            passed, failed, skipped = (row.outcomes[outcome] for outcome in OUTCOMES)
            told.append(f"{passed:7}{failed:7}{skipped:8}{row.seconds:7.1f}  {name}")
        passed, failed, skipped = (
            sum(row.outcomes[outcome] for row in self._rows.values()) for outcome in OUTCOMES
        )
        seconds = time.monotonic() - self._begin
        end = f"all ({state})" if state else "all"
        told.append(f"{passed:7}{failed:7}{skipped:8}{seconds:7.1f}  {end}")
        return told


def words(name: str) -> str:
    return name.split("[")[0].removeprefix("test_").replace("_", " ")


def reason(report: pytest.TestReport) -> str:
    """The first lines of what went wrong, in one."""
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else str(report.longrepr)
    return " ".join(message.split())[:MOST_TOLD]
