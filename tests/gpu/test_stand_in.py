"""The tests of the card are right themselves: a few of each kind run on stand-ins for the card."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu.conftest import why_not
from tests.shared import shared_path

ROOT = Path(__file__).parents[2]
FEW = (
    "card_is_usable or description or ReLU_1 or SoftmaxWithLoss_1 or BatchNorm_train_1 or Convolution_0_1 "
    "or (Convolution and groups and bf16) or (sgd_step and planned_and_captured) or pycaffe or engine_cudnn "
    "or residual_block or no_room or label_is_told or resumes or (every_form and InnerProduct)"
)


def test_the_tests_of_the_card_run_without_one(tmp_path: Path) -> None:
    if not why_not():
        pytest.skip("a card is there, on which all of them run")
    shared_path("golden")
    report = tmp_path / "report.txt"
    command = [sys.executable, "-m", "pytest", "tests/gpu", "--stand-in", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-k", FEW, "--report", str(report)],
        cwd=ROOT,
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    table = report.read_text().splitlines()
    assert table[0].startswith("GPU 0: NumPy, 80 GiB")
    ended = dict(zip(("passed", "failed", "skipped"), map(int, table[-1].split()[:3]), strict=True))
    assert ended["passed"] > 20
    assert ended["failed"] == ended["skipped"] == 0
    assert table[-1].endswith("all")
