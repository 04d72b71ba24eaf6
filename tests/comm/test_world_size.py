"""The marker itself: what becomes of tests that fail, die or hang in one of their ranks."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SUITE = """
import os
import pytest

@pytest.mark.world_size(2)
def test_good(comm):
    assert comm.size == 2

@pytest.mark.world_size(2)
def test_bad_on_rank_1(comm):
    print("printed by", comm.rank)
    assert comm.rank == 0
    comm.barrier()

@pytest.mark.world_size(2)
def test_dies_on_rank_1(comm):
    if comm.rank == 1:
        os._exit(3)
    comm.barrier()

@pytest.mark.world_size(2)
def test_skipped(comm):
    pytest.skip("no reason")

@pytest.mark.world_size(1, 2)
def test_sized(comm, world_size):
    assert comm.size == world_size

def test_plain(comm):
    assert comm.size == 1
"""


def run_suite(folder: Path, text: str) -> tuple[int, str]:
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "test_suite.py").write_text(text)
    (folder / "pytest.ini").write_text(
        "[pytest]\naddopts = --strict-markers\nmarkers =\n    world_size(n): ranks\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(CONFTEST.parents[1])}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-rs", "-p", "no:cacheprovider"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return run.returncode, run.stdout


def test_every_marked_test_has_the_outcome_of_its_worst_rank(tmp_path: Path) -> None:
    status, output = run_suite(tmp_path, SUITE)
    assert status == 1
    for name, outcome in [
        ("test_good", "PASSED"),
        ("test_bad_on_rank_1", "FAILED"),
        ("test_dies_on_rank_1", "FAILED"),
        ("test_skipped", "SKIPPED"),
        ("test_sized[1ranks]", "PASSED"),
        ("test_sized[2ranks]", "PASSED"),
        ("test_plain", "PASSED"),
    ]:
        assert f"test_suite.py::{name} {outcome}" in output, output
    assert "printed by 1" in output
    assert "failed on rank 1 of 2" in output
    assert "2 failed, 4 passed, 1 skipped" in output
    assert "the process died" in output


def test_a_run_of_no_tests_is_a_failure(tmp_path: Path) -> None:
    status, output = run_suite(tmp_path, "")
    assert status != 0, output


def test_a_file_that_only_ranks_cannot_import_is_a_failure(tmp_path: Path) -> None:
    broken = """
import os, pytest
assert "PMI_RANK" not in os.environ

@pytest.mark.world_size(2)
def test_a(): pass
"""
    status, output = run_suite(tmp_path, broken)
    assert status == 1
    assert "mpirun -n 2 ended with status" in output
    assert "1 failed" in output
