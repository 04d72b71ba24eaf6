"""The launch scripts: they parse, and say in one line what is missing."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
SCRIPTS = ("launch/demo", "launch/test", "launch/environment.sh", "launch/slurm.sbatch", ".ci/run")

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def bash(*argv: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    surroundings = {**os.environ, **(env or {})}
    return subprocess.run(["bash", *argv], env=surroundings, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_parses_and_stops_at_the_first_fault(script: str) -> None:
    assert bash("-n", str(ROOT / script)).returncode == 0
    text = (ROOT / script).read_text()
    assert "set -euo pipefail" in text or script == "launch/environment.sh"


@pytest.mark.parametrize("script", ["demo", "test"])
def test_a_python_that_cannot_be_used_is_named(script: str, tmp_path: Path) -> None:
    outcome = bash(
        str(LAUNCH / script), env={"DTRAIN_PYTHON": "/bin/false", "DTRAIN_VENV": str(tmp_path / "venv")}
    )
    assert outcome.returncode == 1
    assert "DTRAIN_PYTHON must be Python 3.11 or newer, got /bin/false" in outcome.stderr
    assert not (tmp_path / "venv").exists()


def test_a_folder_with_other_files_is_never_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    outcome = bash(str(LAUNCH / "demo"), env={"DTRAIN_VENV": str(tmp_path)})
    assert outcome.returncode == 1
    assert "must be a new folder or a Python environment" in outcome.stderr
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("ranks", ["0", "two", "-1", ""])
def test_a_number_of_ranks_that_is_none_is_named(ranks: str) -> None:
    outcome = bash(str(LAUNCH / "demo"), env={"RANKS": ranks, "DTRAIN_PYTHON": "/bin/false"})
    assert outcome.returncode == 1
    expected = "RANKS must be a whole number from 1" if ranks else "DTRAIN_PYTHON must be"
    assert expected in outcome.stderr


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
    (folder / name).chmod(0o755)


def wait_for(path: Path) -> None:
    for _ in range(500):
        if path.exists():
            return
        time.sleep(0.02)
    pytest.fail(f"{path.name} was never written")


def test_a_slurm_job_told_to_stop_waits_for_its_snapshot_and_is_requeued(tmp_path: Path) -> None:
    here = tmp_path / "bin"
    program(
        here,
        "mpirun",
        f"""trap 'sleep 0.3; echo snapshot > {tmp_path}/snapshot; exit 0' TERM
            printf "%s\\n" "$@" > {tmp_path}/started; while :; do sleep 0.05; done""",
    )
    program(here, "scontrol", f'[[ -f {tmp_path}/snapshot ]] && printf "%s\\n" "$*" > {tmp_path}/scontrol')
    surroundings = {
        **os.environ,
        **{"PATH": f"{here}:{os.environ['PATH']}", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"},
        "METRICS_DIR": "m",
    }
    job = subprocess.Popen(["bash", str(LAUNCH / "slurm.sbatch"), "a.prototxt"], env=surroundings)
    wait_for(tmp_path / "started")
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == 0
    assert (tmp_path / "scontrol").read_text() == "requeue 77\n"
    assert (tmp_path / "started").read_text().splitlines() == [
        *("-n", "4", "dtrain", "train", "--snapshot", "auto", "--metrics-textfile", "m"),
        *("--log-json", "dtrain-77.jsonl", "a.prototxt"),
    ]


def test_a_slurm_job_that_fails_says_so_and_is_not_requeued(tmp_path: Path) -> None:
    here = tmp_path / "bin"
    program(here, "mpirun", "exit 7")
    program(here, "scontrol", f"touch {tmp_path}/scontrol")
    outcome = bash(
        str(LAUNCH / "slurm.sbatch"),
        "a.prototxt",
        env={"PATH": f"{here}:{os.environ['PATH']}", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"},
    )
    assert outcome.returncode == 7
    assert not (tmp_path / "scontrol").exists()
