"""What is read from the sanitizer's output."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import sanitize
from benchmarks.sanitize import Finding, read

CLEAN = """========= COMPUTE-SANITIZER
........
8 passed, 100 deselected in 12.34s
========= ERROR SUMMARY: 0 errors
"""
WRONG = """========= COMPUTE-SANITIZER
========= Invalid __global__ write of size 4 bytes
=========     at relu+0x80
========= Error: process didn't terminate successfully
========= Invalid __global__ read of size 4 bytes
"""


def test_a_clean_run_is_ok() -> None:
    assert read("memcheck", CLEAN, 0) == Finding("memcheck", 0, "ok", "8 passed, 100 deselected in 12.34s")


def test_the_summary_counts_the_errors() -> None:
    found = read("memcheck", WRONG + "========= ERROR SUMMARY: 7 errors\n", 1)
    assert (found.errors, found.state) == (7, "FAILED")
    races = read("racecheck", "========= RACECHECK SUMMARY: 2 hazards displayed (1 error, 1 warning)\n", 1)
    assert (races.errors, races.state) == (2, "FAILED")


def test_errors_before_the_time_was_up_count() -> None:
    found = read("memcheck", WRONG, None)
    assert (found.errors, found.state, found.tests) == (3, "FAILED", "no test ended")
    assert read("initcheck", "========= COMPUTE-SANITIZER\n....", None).state == "timed out"


def test_tests_that_fail_are_no_good_run() -> None:
    assert read("memcheck", "1 failed in 2.00s\n========= ERROR SUMMARY: 0 errors\n", 1).state == "FAILED"
    assert read("memcheck", "nothing", 0).state == "FAILED"


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "compute-sanitizer"
    made.write_text(f"#!/bin/sh\ncat <<'END'\n{CLEAN}END\ntest $2 != racecheck || sleep 60\n")
    made.chmod(0o755)
    monkeypatch.setattr(sanitize, "find", lambda: str(made))
    return made


def test_each_tool_has_a_row_and_a_limit(sanitizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sanitize.main(["--tools", "memcheck", "racecheck", "--budget-s", "2"]) == 0
    rows = capsys.readouterr().out.split("\n\n")[-1].splitlines()
    assert rows[0].split() == ["tool", "errors", "state", "tests"]
    assert rows[1].split()[:3] == ["memcheck", "0", "ok"]
    assert rows[2].split()[:4] == ["racecheck", "0", "timed", "out"]


def test_without_the_tool_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanitize, "find", lambda: None)
    assert sanitize.main([]) == 0
    assert "skipped: compute-sanitizer must be on PATH" in capsys.readouterr().out
