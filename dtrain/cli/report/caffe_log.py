"""What a training log in Caffe's format tells: rows of training and of test outputs.

Source of the columns: Caffe's tools/extra/parse_log.py. Two things are told better here: a training row has
the learning rate of its own iteration, where Caffe's has the one printed before it, and the last row
counts even if it is the only one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, final

from dtrain.errors import DataError

_NUMBER = r"[-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|inf|nan)"
_HEAD: Final = re.compile(r"[IWEF](\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d+) ")
_ITERATION: Final = re.compile(r"Iteration (\d+)")
_LOSS: Final = re.compile(
    rf"Iteration \d+ (?:\([^)]*\))?, loss = ({_NUMBER})|Iteration \d+, loss = ({_NUMBER})"
)
_RATE: Final = re.compile(rf"\blr = ({_NUMBER})")
_TEST_NET: Final = re.compile(r"Testing net \(#(\d+)\)")
_OUTPUT: Final = re.compile(rf"(Train|Test) net output #\d+: (\S+) = ({_NUMBER})")

LEAP_YEAR: Final = 2000  # logs tell no year; this one has a 29th of February
COLUMNS: Final = ("NumIters", "Seconds", "LearningRate")


@final
@dataclass
class Row:
    """The outputs of one net at one iteration; seconds since the log's first line."""

    iteration: int
    seconds: float
    lr: float
    outputs: dict[str, float] = field(default_factory=dict)


@final
@dataclass
class TrainingLog:
    """Rows in the order of the log; `test` by the number of the test net.

    `loss` holds the smoothed losses that displays tell, as rows with the one output "loss".
    """

    train: list[Row] = field(default_factory=list)
    test: dict[int, list[Row]] = field(default_factory=dict)
    loss: list[Row] = field(default_factory=list)


def read_log(path: Path) -> TrainingLog:
    """The rows of a log file. Raises DataError where it cannot be read or tells of no iteration."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: must be a readable log, got {error.strerror or error}") from error
    log = _Reader().read(text.splitlines())
    if not (log.train or log.test or log.loss):
        raise DataError(
            f"{path}: must be a training log in Caffe's format, got no iteration's loss or output"
        )
    return log


@final
class _Reader:
    def __init__(self) -> None:
        self._log = TrainingLog()
        self._start: datetime | None = None
        self._last: datetime | None = None
        self._iteration = -1
        self._net = 0
        self._rate = float("nan")

    def read(self, lines: Sequence[str]) -> TrainingLog:
        for line in lines:
            self._line(line)
        for rows in (self._log.train, self._log.loss, *self._log.test.values()):
            _fill_first_rate(rows)
        return self._log

    def _line(self, line: str) -> None:
        seconds = self._seconds(line)
        if seconds is None:
            return  # not a line of the log, or the broken end of one
        if found := _ITERATION.search(line):
            self._iteration = int(found[1])
        if self._iteration < 0:
            return
        if found := _TEST_NET.search(line):
            self._net = int(found[1])
        if found := _RATE.search(line):
            self._rate = float(found[1])
            for rows in (self._log.train, self._log.loss):
                if rows and rows[-1].iteration == self._iteration:
                    rows[-1].lr = self._rate
        if found := _LOSS.search(line):
            row = self._row(self._log.loss, seconds)
            row.outputs["loss"] = float(found[1] or found[2])
        if found := _OUTPUT.search(line):
            rows = self._log.train if found[1] == "Train" else self._log.test.setdefault(self._net, [])
            outputs = self._row(rows, seconds).outputs
            outputs[_free_name(found[2], outputs)] = float(found[3])

    def _row(self, rows: list[Row], seconds: float) -> Row:
        if not rows or rows[-1].iteration != self._iteration:
            rows.append(Row(self._iteration, seconds, self._rate))
        return rows[-1]

    def _seconds(self, line: str) -> float | None:
        """Since the first line; a log that runs into another year goes on counting."""
        head = _HEAD.match(line)
        if head is None:
            return None
        month, day, hour, minute, second = (int(part) for part in head.groups()[:5])
        year = self._last.year if self._last is not None else LEAP_YEAR
        try:
            moment = datetime(year, month, day, hour, minute, second, int(head[6][:6].ljust(6, "0")))
            if self._last is not None and moment.month < self._last.month:
                moment = moment.replace(year=year + 1)
        except ValueError:
            return None
        self._start = self._start or moment
        self._last = moment
        return (moment - self._start).total_seconds()


def _free_name(name: str, outputs: dict[str, float]) -> str:
    """An output of several values is told as several lines of one name: prob, prob[1], prob[2]."""
    if name not in outputs:
        return name
    place = 1
    while f"{name}[{place}]" in outputs:
        place += 1
    return f"{name}[{place}]"


def _fill_first_rate(rows: list[Row]) -> None:
    """The first test comes before the first learning rate is told."""
    if len(rows) > 1 and rows[0].lr != rows[0].lr:
        rows[0].lr = rows[1].lr


def write_csv(path: Path, rows: Sequence[Row], delimiter: str) -> None:
    """Columns NumIters, Seconds, LearningRate, then every output that a row tells."""
    names = list(dict.fromkeys(name for row in rows for name in row.outputs))
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
            writer.writerow((*COLUMNS, *names))
            for row in rows:
                values = (row.outputs.get(name, "") for name in names)
                writer.writerow((float(row.iteration), row.seconds, row.lr, *values))
    except OSError as error:
        raise DataError(f"{path}: must be writable, got {error.strerror or error}") from error
