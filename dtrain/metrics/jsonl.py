"""The events of a run as JSON lines: one object an event, written whole and at once."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from dtrain.errors import ConfigError
from dtrain.metrics.reporter import Display, Output, Reporter, Score, Snapshot, Start, Step

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]


def json_number(value: float) -> Value:
    """JSON has no NaN and no infinities; as strings they survive any parser (protobuf's JSON does so)."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


@final
class JsonLog(Reporter):
    """Appends to `path`, making its folder. A write that fails later is told once, and the run goes on."""

    def __init__(self, path: Path, logger: logging.Logger) -> None:
        self._path = path
        self._logger = logger
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # One write a line on an O_APPEND descriptor: a reader never sees half of one.
            self._descriptor: int | None = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise ConfigError(f"--log-json: path must be writable, got {path} ({error.strerror})") from None

    def start(self, event: Start) -> None:
        self._write("start", dict(zip(event._fields, event, strict=True)))

    def step(self, event: Step) -> None:
        pass  # thousands a minute: the displays sum them up

    def display(self, event: Display) -> None:
        self._write(
            "display",
            {
                "iteration": event.iteration,
                "loss": json_number(event.loss),
                "lr": json_number(event.lr),
                "iterations": event.iterations,
                "seconds": event.seconds,
                "outputs": _outputs(event.outputs),
            },
        )

    def testing(self, iteration: int, net_id: int) -> None:
        self._write("testing", {"iteration": iteration, "net": net_id})

    def test(self, event: Score) -> None:
        self._write(
            "test",
            {
                "iteration": event.iteration,
                "net": event.net_id,
                "seconds": event.seconds,
                "loss": None if event.loss is None else json_number(event.loss),
                "outputs": _outputs(event.outputs),
            },
        )

    def test_interrupted(self) -> None:
        self._write("test_interrupted", {})

    def snapshot(self, event: Snapshot) -> None:
        self._write("snapshot", dict(zip(event._fields, event, strict=True)))

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        self._write("snapshot_done", {"iteration": iteration, "seconds": seconds})

    def final_loss(self, iteration: int, loss: float) -> None:
        self._write("final_loss", {"iteration": iteration, "loss": json_number(loss)})

    def done(self) -> None:
        self._write("done", {})

    def stopped_early(self) -> None:
        self._write("stopped_early", {})

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _write(self, event: str, fields: Mapping[str, Value]) -> None:
        if self._descriptor is None:
            return
        line = json.dumps({"time": round(time.time(), 6), "event": event, **fields}, allow_nan=False)
        try:
            os.write(self._descriptor, line.encode() + b"\n")
        except OSError as error:
            self._logger.warning("--log-json: no more events go to %s: %s", self._path, error.strerror)
            self.close()


def _outputs(outputs: Sequence[Output]) -> list[Value]:
    return [
        {"name": name, "value": json_number(value), "loss_weight": json_number(weight)}
        for name, value, weight in outputs
    ]
