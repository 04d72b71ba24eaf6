"""Log lines as BVLC Caffe 1.0 writes them through glog, so that parsers written for Caffe read them.

    I1121 02:13:45.123456  4242 solver.cpp:218] Iteration 100 (12.3 iter/s, 8.1s/100 iters), loss = 0.12

The lines of a training run carry the places in Caffe's sources that print them: people grep for
"solver.cpp" and "sgd_solver.cpp". All other lines carry their own file and line.

Source: src/caffe/solver.cpp and src/caffe/solvers/sgd_solver.cpp of the tag 1.0; glog's line prefix.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import final

from dtrain.metrics.reporter import Display, Output, Reporter, Score, Snapshot, Start, Step

SEVERITIES = ((logging.CRITICAL, "F"), (logging.ERROR, "E"), (logging.WARNING, "W"))


def number(value: float) -> str:
    """Six significant digits, as a C++ stream prints a float."""
    return f"{value:.6g}"


@final
class GlogFormatter(logging.Formatter):
    """Severity, MMDD, local time with microseconds, process id, place, text."""

    def format(self, record: logging.LogRecord) -> str:
        severity = next((letter for level, letter in SEVERITIES if record.levelno >= level), "I")
        seconds, microseconds = divmod(round(record.created * 1e6), 1_000_000)
        moment = time.strftime("%m%d %H:%M:%S", time.localtime(seconds))
        place = record.__dict__.get("place") or f"{record.filename}:{record.lineno}"
        head = f"{severity}{moment}.{microseconds:06d} {record.process or 0:>5} {place}] "
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return "\n".join(head + line for line in text.split("\n"))


@final
class AttachedHandler:
    """Puts a handler and a level on a logger; `close` leaves the logger as it was."""

    def __init__(self, logger: logging.Logger, handler: logging.Handler, level: int) -> None:
        self._logger = logger
        self._handler = handler
        self._former_level = logger.level
        logger.addHandler(handler)
        logger.setLevel(level)

    def close(self) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._former_level)
        self._handler.close()


@final
class CaffeLog(Reporter):
    """Every event as the line or lines that Caffe prints for it, on one logger."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def start(self, event: Start) -> None:
        self._line("solver.cpp:272", f"Solving {event.net}")
        self._line("solver.cpp:273", f"Learning Rate Policy: {event.lr_policy}")
        if event.resumed_from:
            self._line("solver.cpp:279", f"Restoring previous solver status from {event.resumed_from}")

    def step(self, event: Step) -> None:
        pass  # Caffe prints nothing between displays

    def display(self, event: Display) -> None:
        rate = number(event.iterations / (event.seconds or 1))
        pace = f"{rate} iter/s, {number(event.seconds)}s/{event.every} iters"
        self._line("solver.cpp:218", f"Iteration {event.iteration} ({pace}), loss = {number(event.loss)}")
        self._outputs("solver.cpp:237", "Train", event.outputs)
        self._line("sgd_solver.cpp:105", f"Iteration {event.iteration}, lr = {number(event.lr)}")

    def testing(self, iteration: int, net_id: int) -> None:
        self._line("solver.cpp:330", f"Iteration {iteration}, Testing net (#{net_id})")

    def test(self, event: Score) -> None:
        if event.loss is not None:
            self._line("solver.cpp:384", f"Test loss: {number(event.loss)}")
        self._outputs("solver.cpp:397", "Test", event.outputs)

    def test_interrupted(self) -> None:
        self._line("solver.cpp:379", "Test interrupted.")

    def snapshot(self, event: Snapshot) -> None:
        subject = "" if event.what == "model" else f" {event.what}"
        target = "HDF5 file" if event.hdf5 else "binary proto file"
        place = {
            ("model", False): "solver.cpp:447",
            ("model", True): "solver.cpp:457",
            ("solver state", False): "sgd_solver.cpp:273",
            ("solver state", True): "sgd_solver.cpp:283",
        }[event.what, event.hdf5]
        self._line(place, f"Snapshotting{subject} to {target} {event.path}")

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        pass  # Caffe prints nothing

    def final_loss(self, iteration: int, loss: float) -> None:
        self._line("solver.cpp:310", f"Iteration {iteration}, loss = {number(loss)}")

    def done(self) -> None:
        self._line("solver.cpp:315", "Optimization Done.")

    def stopped_early(self) -> None:
        self._line("solver.cpp:294", "Optimization stopped early.")

    def close(self) -> None:
        pass  # whoever made the logger owns its handlers

    def _outputs(self, place: str, phase: str, outputs: Sequence[Output]) -> None:
        for index, (name, value, weight) in enumerate(outputs):
            loss = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
            self._line(place, f"    {phase} net output #{index}: {name} = {number(value)}{loss}")

    def _line(self, place: str, text: str) -> None:
        self._logger.info("%s", text, extra={"place": place})
