"""The progress line: on a terminal only, one line, with the numbers that a person wants."""

import io
import os
import pty
import re
import shutil
import sys
from pathlib import Path

import pytest
from rich.console import Console

from dtrain.metrics.progress import ProgressReporter, Show, open_reporter
from dtrain.metrics.reporter import Display, Output, Score, Step
from dtrain.metrics.terminal import LAUNCHERS, Process, process, terminal_width
from tests.metrics.events import PHASES, START, short_run

PROGRAM = """
import sys, time
from dtrain.metrics.progress import open_reporter
from tests.metrics.events import short_run
report = open_reporter(sys.stderr, rank=int(sys.argv[1]))
short_run(report)
report.close()
"""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class Clock:
    """A clock that a test winds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def on_terminal(argv: list[str]) -> str:
    """What a person sees who runs `argv` on a terminal of 120 columns."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.execvpe(
            argv[0], argv, {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TERM": "xterm"}
        )
    seen = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # Linux says EIO once the other side is gone
            break
        if not chunk:
            break
        seen += chunk
    os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, seen.decode()
    return seen.decode()


def test_the_line_shows_loss_lr_rate_time_left_and_accuracy() -> None:
    stream, clock = io.StringIO(), Clock()
    report = ProgressReporter(Console(file=stream, force_terminal=True, width=160, highlight=False), clock)
    report.start(START)
    report.testing(0, 0)
    clock.now += 50  # a slow test must not count as training time
    report.test(Score(0, 0, [Output("loss", 2.3, 1.0), Output("accuracy", 0.1)]))
    report.display(Display(0, 2.25, 0.01, 0, 0.0, 100))
    for iteration in range(1, 51):
        clock.now += 0.1
        report.step(Step(iteration, 64, PHASES))
    report.close()
    last = plain(stream.getvalue()).replace("\r", "\n").strip().splitlines()[-1]
    assert "50/200" in last
    assert "loss 2.25" in last
    assert "lr 0.01" in last
    assert "1280 images/s" in last  # 10 iterations a second of 128 images
    assert "0:15 left" in last  # 150 to go
    assert "test accuracy 0.1" in last


def test_lines_stay_above_and_say_what_happened() -> None:
    stream = io.StringIO()
    report = open_reporter(stream, rank=0, show=Show.ON)
    short_run(report)
    report.close()
    text = plain(stream.getvalue())
    assert "Training LeNet with SGD (inv) on 2 ranks, iterations 0 to 200" in text
    assert "Iteration 200: test net #0: accuracy 0.9914, loss 0.0285" in text
    assert "Iteration 200: solver state to runs/lenet_iter_200.solverstate" in text
    assert "Optimization done" in text
    assert "solver.cpp" not in text
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")


def test_brackets_in_names_are_text_and_not_markup() -> None:
    stream = io.StringIO()
    report = open_reporter(stream, rank=0, show=Show.ON)
    report.start(START._replace(net="[bold]net[/nothing]"))
    report.close()
    assert "[bold]net[/nothing]" in plain(stream.getvalue())


def test_a_file_gets_log_lines_and_no_escape_codes() -> None:
    stream = io.StringIO()
    report = open_reporter(stream, rank=0)
    short_run(report)
    report.close()
    assert "\x1b" not in stream.getvalue()
    assert "solver.cpp:272] Solving LeNet" in stream.getvalue()


def test_a_step_between_two_redraws_costs_microseconds() -> None:
    clock = Clock()
    report = ProgressReporter(Console(file=io.StringIO(), force_terminal=True, width=80), clock)
    report.start(START)
    size = len(report._console.file.getvalue())  # type: ignore[attr-defined]
    for iteration in range(1000):
        report.step(Step(iteration, 64, PHASES))
    assert len(report._console.file.getvalue()) == size  # type: ignore[attr-defined]
    report.close()


def test_a_person_at_a_terminal_sees_the_progress_line() -> None:
    seen = on_terminal([sys.executable, "-c", PROGRAM, "0"])
    assert "\x1b[?25h" in seen
    assert "200/200" in plain(seen)


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="no mpirun: the mpi extra is not installed")
@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux lets a process look up its launcher")
def test_a_person_who_runs_mpirun_at_a_terminal_sees_the_progress_line_too() -> None:
    seen = on_terminal(["mpirun", "-n", "1", sys.executable, "-c", PROGRAM, "0"])
    assert "200/200" in plain(seen)
    assert "solver.cpp" not in seen


@pytest.mark.skipif(not Path("/proc").exists(), reason="only Linux has a process table to read")
def test_the_process_table_is_read() -> None:
    own = process(os.getpid())
    assert isinstance(own, Process)
    assert own.parent == os.getppid()
    assert own.name not in LAUNCHERS
    assert process(2**22 + 1) is None


def test_a_stream_that_is_no_terminal_has_no_width() -> None:
    assert terminal_width(io.StringIO()) is None
