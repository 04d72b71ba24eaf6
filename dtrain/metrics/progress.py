"""What a person sees: a progress line on a terminal, Caffe's log lines anywhere else.

`open_reporter` is the one door: it decides what this rank shows and writes, and gives one `Reporter`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TextIO, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from dtrain.metrics.jsonl import JsonLog
from dtrain.metrics.log import AttachedHandler, CaffeLog, GlogFormatter, number
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Display, Output, Reporter, Reporters, Score, Snapshot, Start, Step
from dtrain.metrics.terminal import terminal_width
from dtrain.metrics.training import TrainingMetrics

REFRESH_S = 0.2
STYLES = ((logging.ERROR, "bold red"), (logging.WARNING, "yellow"))


@final
class Show(Enum):
    """Whether to draw the progress line: where a terminal is, always, or never."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def open_reporter(
    stream: TextIO,
    *,
    rank: int,
    show: Show = Show.AUTO,
    log_json: Path | None = None,
    recorder: Recorder | None = None,
) -> Reporter:
    """The reporter of this rank, which also takes what the logger "dtrain" and those below it say.

    Rank 0 tells everything, the others only warnings and their own numbers. Raises ConfigError where
    `log_json` cannot be written.
    """
    logger = logging.getLogger("dtrain")
    listeners: list[Reporter] = []
    if recorder is not None:
        listeners.append(TrainingMetrics(recorder))
    if rank == 0 and log_json is not None:
        listeners.append(JsonLog(log_json, logger))
    width = None
    if rank == 0 and show is not Show.OFF:
        width = terminal_width(stream)
        if show is Show.ON:
            width = width or 80
    handler: logging.Handler
    if width is not None:
        console = Console(file=stream, force_terminal=True, width=width, highlight=False)
        handler = ConsoleHandler(console)
        listeners.append(ProgressReporter(console))
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(GlogFormatter())
        if rank == 0:
            listeners.append(CaffeLog(logger))
    attached = AttachedHandler(logger, handler, logging.INFO if rank == 0 else logging.WARNING)
    return Reporters(listeners, [attached.close])


@final
class ConsoleHandler(logging.Handler):
    """Log records as plain text above whatever the console shows; warnings and errors in colour."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            style = next((style for level, style in STYLES if record.levelno >= level), "")
            self._console.print(Text(self.format(record), style=style), soft_wrap=True)
        except Exception:  # logging must not end a run: handleError tells it on stderr
            self.handleError(record)


@final
class ProgressReporter(Reporter):
    """One line at the bottom: bar, iteration, loss, lr, images/s, time left, newest test scores.

    Redrawn from the loop's own calls, at most every 0.2 s, so no thread takes time from the ranks.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._next_draw = 0.0
        self._mark = (0.0, 0)  # moment and iteration from which the rate is measured
        self._test_begin = 0.0
        self._global_batch = 0
        self._loss = self._lr = self._rate = self._left = self._scores = self._doing = ""
        self._progress = Progress(
            TextColumn("{task.fields[doing]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("[bold]{task.fields[numbers]}"),
            console=console,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            expand=True,
        )
        self._task = self._progress.add_task("", start=False, total=0, doing="", numbers="", visible=False)

    def start(self, event: Start) -> None:
        self._global_batch = event.global_batch
        self._mark = (self._clock(), event.iteration)
        ranks = f"{event.ranks} rank{'s' if event.ranks != 1 else ''}"
        self._say(
            f"Training {event.net} with {event.solver} ({event.lr_policy}) on {ranks}, "
            f"iterations {event.iteration} to {event.max_iter}"
        )
        if event.resumed_from:
            self._say(f"Resumed from {event.resumed_from}")
        self._doing = "train"
        self._progress.update(self._task, total=event.max_iter, completed=event.iteration, visible=True)
        self._progress.start()
        # a job that is killed outright cannot give the cursor back, so it never takes it
        self._console.show_cursor(True)
        self._draw(event.iteration)

    def step(self, event: Step) -> None:
        now = self._clock()
        if now < self._next_draw:
            return
        moment, iteration = self._mark
        if event.iteration > iteration and now > moment:
            per_s = (event.iteration - iteration) / (now - moment)
            images = per_s * self._global_batch
            self._rate = f"{images:.0f} images/s" if images else f"{per_s:.1f} iter/s"
            total = self._progress.tasks[0].total or 0
            self._left = f"{_duration((total - event.iteration) / per_s)} left"
            # a rate over the last several seconds: old enough to be steady, new enough to follow
            if now - moment > 10:
                self._mark = (now - 5, event.iteration - round(5 * per_s))
        self._draw(event.iteration)

    def display(self, event: Display) -> None:
        self._loss = f"loss {number(event.loss)}"
        self._lr = f"lr {number(event.lr)}"

    def testing(self, iteration: int, net_id: int) -> None:
        self._doing = "test"
        self._test_begin = self._clock()
        self._draw(iteration)

    def test(self, event: Score) -> None:
        outputs = list(event.outputs)
        if event.loss is not None:
            outputs.append(Output("test loss", event.loss))
        told = ", ".join(f"{name} {number(value)}" for name, value, _ in outputs)
        self._say(f"Iteration {event.iteration}: test net #{event.net_id}: {told}")
        shown = [one for one in outputs if one.name.startswith("accuracy")] or outputs[:1]
        self._scores = "test " + ", ".join(f"{name} {number(value)}" for name, value, _ in shown)
        self._after_test(event.iteration)

    def test_interrupted(self) -> None:
        self._say("Test interrupted")
        self._after_test(None)

    def snapshot(self, event: Snapshot) -> None:
        self._say(f"Iteration {event.iteration}: {event.what} to {event.path}")

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        pass  # the line that named the file is enough

    def final_loss(self, iteration: int, loss: float) -> None:
        self._loss = f"loss {number(loss)}"
        self._say(f"Iteration {iteration}: loss {number(loss)}")

    def done(self) -> None:
        self._left = ""
        self._draw(int(self._progress.tasks[0].total or 0))
        self._say("Optimization done")

    def stopped_early(self) -> None:
        self._left = ""
        self._say("Optimization stopped early")

    def close(self) -> None:
        self._progress.stop()

    def _after_test(self, iteration: int | None) -> None:
        moment, mark = self._mark
        self._mark = (moment + self._clock() - self._test_begin, mark)  # testing is no training time
        self._doing = "train"
        self._draw(iteration)

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def _draw(self, iteration: int | None) -> None:
        parts = (self._loss, self._lr, self._rate, self._left, self._scores)
        self._progress.update(
            self._task,
            completed=iteration,
            doing=self._doing,
            numbers="  ".join(part for part in parts if part),
        )
        self._progress.refresh()
        self._next_draw = self._clock() + REFRESH_S


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"
