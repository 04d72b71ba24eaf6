"""The tests of the card under compute-sanitizer: memory errors, races, uninitialised reads, barriers.

    python -m benchmarks.sanitize [-k EXPRESSION] [--tools memcheck racecheck ...] [--budget-s 80]

Each tool runs the operators and layers of `pytest tests/gpu`, one kernel after the other, with CuPy's memory
pool off, so that every array is an allocation of its own, and gets an equal share of the time that is left. A
tool that runs out of it is told with what it had found.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.turns import Budget

TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer", "/opt/cuda/bin")
FILES = ("tests/gpu/test_operators.py", "tests/gpu/test_layers.py")
QUICK = "cuda_gives_what_the_cpu_gives or every_layer_gives_the_numbers_of_caffe"
MORE = {"memcheck": ("--report-api-errors", "no")}  # libraries ask the driver what it does not have
WITHOUT_POOL = (
    "import cupy, pytest, sys; cupy.cuda.set_allocator(None); "
    "cupy.cuda.set_pinned_memory_allocator(None); sys.exit(pytest.main(sys.argv[1:]))"
)
SUMMARY = re.compile(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)")
FOUND = re.compile(r"^=+ (Invalid|Error|Warning|Uninitialized|Barrier error|Program hit)", re.MULTILINE)
TOLD, MOST_TOLD = re.compile(r"=+ +\S|FAILED|ERROR"), 40  # lines of a tool that found something
PYTEST = re.compile(r"^=* ?((?:\d+ \w+,? ?)+in [\d.]+s.*?) ?=*$", re.MULTILINE)


class Finding(NamedTuple):
    """Of one tool."""

    tool: str
    errors: int
    state: str
    tests: str

    def __str__(self) -> str:
        return f"{self.tool:10} {self.errors:6} {self.state:10} {self.tests}"


def find() -> str | None:
    """compute-sanitizer, on PATH or where CUDA's toolkit puts it."""
    places = [os.environ.get("PATH", ""), *PLACES]
    return shutil.which("compute-sanitizer", path=os.pathsep.join(places))


def read(tool: str, output: str, status: int | None) -> Finding:
    """What a tool's output says; status None is a run that was ended."""
    summaries = [int(number) for number in SUMMARY.findall(output)]
    errors = sum(summaries) if summaries else len(FOUND.findall(output))
    told = PYTEST.findall(output)
    tests = told[-1].strip() if told else "no test ended" if status is None else "no tests' summary"
    if errors:
        state = "FAILED"
    elif status is None:
        state = "timed out"
    else:
        state = "ok" if summaries and status == 0 else "FAILED"
    return Finding(tool, errors, state, tests)


def run(sanitizer: str, tool: str, select: str, limit_s: float, log: Path) -> Finding:
    """One tool; its whole output goes to the log."""
    command = [sanitizer, "--tool", tool, *MORE.get(tool, ()), sys.executable, "-c", WITHOUT_POOL]
    command += [*FILES, "-q", "-x", "-p", "no:cacheprovider", "-k", select]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = None
    output = log.read_text(errors="replace")
    found = read(tool, output, status)
    if found.state == "FAILED":
        told = [line for line in output.splitlines() if TOLD.match(line)]
        print("\n".join(told[:MOST_TOLD]))
    return found


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-k", dest="select", default=QUICK, help=f"which tests (default {QUICK})")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--budget-s", type=float, default=80.0, help="of the whole command (default 80)")
    parser.add_argument("--logs", type=Path, help="keep each tool's output in this folder")
    asked = parser.parse_args(given)
    sanitizer = find()
    if sanitizer is None:
        print("sanitizer  skipped: compute-sanitizer must be on PATH; it comes with CUDA's toolkit")
        return 0
    budget = Budget(asked.budget_s)
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        logs = asked.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        for number, tool in enumerate(asked.tools):
            begin = time.perf_counter()
            share = budget.share_s(len(asked.tools) - number)
            findings.append(run(sanitizer, tool, asked.select, share, logs / f"{tool}.txt"))
            print(f"{tool} took {time.perf_counter() - begin:.0f} s", flush=True)
    print(f"\n{'tool':10} {'errors':>6} {'state':10} tests")
    print("\n".join(map(str, findings)))
    return int(any(finding.state == "FAILED" for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
