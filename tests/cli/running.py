"""Runs `dtrain`, alone or under mpirun, and tells what became of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABORT_LINE = "application called MPI_Abort"  # what MPICH adds where one rank ends a job


@dataclass(frozen=True)
class Outcome:
    """What a finished command left."""

    status: int
    out: str
    err: str

    @property
    def faults(self) -> list[str]:
        """Lines of stderr that are neither log lines nor MPICH's own."""
        lines = self.err.splitlines()
        return [line for line in lines if not re.match(r"I\d{4} ", line) and ABORT_LINE not in line]


def command(arguments: list[str], ranks: int) -> list[str]:
    program = [sys.executable, "-m", "dtrain.cli.main", *arguments]
    if ranks == 1:
        return program
    mpirun = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert mpirun is not None, "tests with ranks need an mpirun; pip install -e '.[mpi,dev]'"
    return [mpirun, "-n", str(ranks), *program]


def surroundings() -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "OMP_NUM_THREADS": "1",
    }


def dtrain(*arguments: str, at: Path, ranks: int = 1) -> Outcome:
    """Run a command in the folder `at` to its end."""
    done = subprocess.run(
        command(list(arguments), ranks),
        cwd=at,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def dtrain_signalled(number: signal.Signals, mark: str, *arguments: str, at: Path, ranks: int = 1) -> Outcome:
    """Run a command, send a signal as a terminal would once its log holds `mark`, and wait for its end."""
    log = at / "signalled.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command(list(arguments), ranks),
            cwd=at,
            env=surroundings(),
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 60
            while mark not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            os.killpg(process.pid, number)
            status = process.wait(60)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return Outcome(status, "", log.read_text())
