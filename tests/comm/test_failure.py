"""A dead, stuck or raising rank ends the whole job within a bounded time, and the message names it."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("failing_rank.py")
WARN_S, ABORT_S, START_S = 1.0, 3.0, 15.0


def run_job(
    mode: str,
    size: int = 2,
    *more: str,
    script: Path = SCRIPT,
    warn_s: float = WARN_S,
    abort_s: float = ABORT_S,
    timeout_s: float = 60.0,
) -> tuple[int, str, float]:
    """Exit status, output and seconds of a job of the script."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mpirun = shutil.which("mpirun", path=path)
    assert mpirun is not None
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")))
        ),
        "OMP_NUM_THREADS": "1",
        "DTRAIN_STALL_WARN_S": str(warn_s),
        "DTRAIN_STALL_ABORT_S": str(abort_s),
    }
    command = [mpirun, "-n", str(size), sys.executable, str(script), mode, *more]
    begin = time.monotonic()
    run = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )
    return run.returncode, run.stdout, time.monotonic() - begin


def test_a_job_without_failure_ends_well_and_says_nothing() -> None:
    status, output, _ = run_job("none")
    assert (status, output) == (0, "")


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("raise", r"rank 1 on \S+: ValueError: no such thing"),
        ("thread", r"rank 1 on \S+: ValueError: no such thing"),
        ("user", r'error: rank 1 on \S+: net.prototxt:3: layer "a": pad must be 0, got 1'),
        ("status", r"rank 1 on \S+: exit with status 4"),
        ("exit", r'rank 1 on \S+ \(pid \d+\): the process died in phase "forward" after collective \d+'),
        ("kill", r'rank 1 on \S+ \(pid \d+\): the process died in phase "forward" after collective \d+'),
    ],
)
@pytest.mark.parametrize("size", [2, 4])
def test_a_failed_rank_ends_the_job_at_once_and_is_named(mode: str, told: str, size: int) -> None:
    status, output, seconds = run_job(mode, size)
    assert status != 0
    assert re.search(told, output), output
    assert "rank 0 on" not in output
    assert seconds < START_S


def test_a_user_error_has_no_traceback() -> None:
    assert "Traceback" not in run_job("user")[1]


@pytest.mark.parametrize(("size", "where"), [(2, "one machine"), (4, "one machine"), (3, "machines")])
def test_a_stuck_rank_is_named_with_its_stack_and_the_job_is_ended(size: int, where: str) -> None:
    status, output, seconds = run_job("sleep", size, where)
    assert status != 0
    assert ABORT_S < seconds < START_S + ABORT_S
    assert re.search(
        r'stall: rank 0 on \S+ \(pid \d+\): waiting [\d.]+ s in phase "backward" for collective \d+ '
        r"\(gradient bucket 2 of 2\); "
        r'not arrived: rank 1 on \S+ \(pid \d+\), phase "forward", after collective \d+\n',
        output,
    ), output
    assert "in sleep_in_layer\n" in output
    assert re.search(r"error: rank \d .* not arrived: rank 1 .*; a collective must end in 3 s", output), (
        output
    )
    assert not re.search(r"not arrived: rank [023]", output)


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("agree_all", "error: net.prototxt: must be a file, got nothing there"),
        (
            "agree_one",
            "error: rank 1 (of ranks 1 that failed): net.prototxt: must be a file, got nothing there",
        ),
    ],
)
def test_an_agreed_error_is_printed_once(mode: str, told: str) -> None:
    status, output, _ = run_job(mode)
    assert status != 0
    assert output == f"{told}\n"


def test_a_mismatch_of_shapes_is_printed_once() -> None:
    status, output, _ = run_job("mismatch")
    assert status != 0
    assert output.count("float64[3] own memory at rank 0 and allreduce float64[4] own memory at rank 1") == 1
