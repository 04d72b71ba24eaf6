"""The one command for a card goes on after failures, keeps its limits and ends with what is short."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_on_card.sh"
PYTHON = """#!/bin/sh
case "$*" in
*'-m pytest'*) echo 'a failure'; echo '1 failed in 0.1s'; exit 1 ;;
*'-m benchmarks.gpu'*) echo "asked: $*"; echo 'net batch'; echo 'caffenet 256'; sleep 60 ;;
*'-m benchmarks.sanitize'*) echo 'noise'; echo 'tool errors'; echo 'memcheck 0' ;;
*) echo 'numpy 2' ;;
esac
"""


def test_stages_fail_or_end_in_time_and_the_short_table_is_last(tmp_path: Path) -> None:
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(PYTHON)
    python.chmod(0o755)
    given = {"PYTHON": str(python), "OUT": str(out), "BENCH_S": "2"}
    begin = time.monotonic()
    done = subprocess.run(
        ["bash", str(SCRIPT), "resnet50", "--precision", "bf16"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert time.monotonic() - begin < 20
    short = done.stdout.split("== in short")[1].splitlines()[1:]
    assert short[:6] == [
        *("a failure", "1 failed in 0.1s", "net batch", "caffenet 256"),
        *("tool errors", "memcheck 0"),
    ]
    ends = [line[:22].split(maxsplit=1) for line in short[6:]]
    assert [[name, how.strip()] for name, how in ends] == [
        ["versions", "ok"],
        ["tests", "status 1"],
        ["gpu", "timed out"],
        ["sanitize", "ok"],
    ]
    asked = (out / "gpu.txt").read_text()
    assert asked.splitlines()[0].endswith(f"--json {out}/gpu.json resnet50 --precision bf16")


def test_the_stages_together_stay_below_nine_and_a_half_minutes() -> None:
    text = SCRIPT.read_text()
    limits = [int(line.split(":-")[1].rstrip("}")) for line in text.splitlines() if "_S:-" in line]
    fixed = [
        int(line.split()[2])
        for line in text.splitlines()
        if line.strip().startswith("stage ") and line.split()[2].isdigit()
    ]
    assert len(limits) == 3
    assert len(fixed) == 2
    stages = len(limits) + len(fixed)
    assert sum(limits) + sum(fixed) + 5 * stages <= 9.5 * 60, "5 s more where a stage must be killed"
