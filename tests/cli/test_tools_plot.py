"""`dtrain plot`: the curves that are drawn, and the files they are drawn to."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dtrain.cli.main import run
from dtrain.cli.report.caffe_log import Row, TrainingLog
from dtrain.cli.report.charts import curves_of

LOG = """\
I0101 00:00:00.000000  1 solver.cpp:330] Iteration 0, Testing net (#0)
I0101 00:00:01.000000  1 solver.cpp:397]     Test net output #0: accuracy = 0.1
I0101 00:00:02.000000  1 solver.cpp:218] Iteration 0 (5 iter/s, 4s/20 iters), loss = 2
I0101 00:00:02.000000  1 solver.cpp:237]     Train net output #0: loss = 2 (* 1 = 2 loss)
I0101 00:00:02.000000  1 sgd_solver.cpp:105] Iteration 0, lr = 0.1
I0101 00:00:04.000000  1 solver.cpp:218] Iteration 20 (5 iter/s, 4s/20 iters), loss = 1
I0101 00:00:04.000000  1 solver.cpp:237]     Train net output #0: loss = 1 (* 1 = 1 loss)
I0101 00:00:04.000000  1 sgd_solver.cpp:105] Iteration 20, lr = 0.001
"""


def rows(*values: tuple[int, float], name: str = "loss") -> list[Row]:
    return [Row(iteration, 2.0 * iteration, 0.1, {name: value}) for iteration, value in values]


def test_the_smoothed_loss_stands_before_the_noise_behind_it() -> None:
    log = TrainingLog(train=rows((0, 3.0), (10, 1.0)), loss=rows((0, 3.0), (10, 2.0)))
    curves = {(curve.label, curve.is_faint): curve.y for curve in curves_of(log, "iteration")}
    assert curves["train loss", True] == [3.0, 1.0]
    assert curves["train loss", False] == [3.0, 2.0]


def test_a_loss_that_is_not_smoothed_is_one_curve() -> None:
    log = TrainingLog(train=rows((0, 3.0), (10, 1.0)), loss=rows((0, 3.0), (10, 1.0)))
    assert [curve.label for curve in curves_of(log, "iteration")] == ["train loss", "learning rate"]


def test_scores_and_losses_have_panels_of_their_own() -> None:
    log = TrainingLog(test={0: rows((0, 0.5), name="accuracy"), 1: rows((0, 0.5), name="top5_loss")})
    assert [(c.panel, c.label, c.is_test) for c in curves_of(log, "iteration")] == [
        ("score", "test #0 accuracy", True),
        ("loss", "test #1 top5_loss", True),
    ]


def test_seconds_are_an_axis_too() -> None:
    log = TrainingLog(train=rows((0, 3.0), (10, 1.0)))
    assert curves_of(log, "seconds")[0].x == [0.0, 20.0]


def test_a_run_that_goes_back_leaves_a_gap() -> None:
    curve = curves_of(TrainingLog(train=rows((0, 3.0), (20, 2.0), (10, 2.5))), "iteration")[0]
    assert curve.x == [0, 20, 10, 10]
    assert math.isnan(curve.y[2])


@pytest.fixture
def logs(tmp_path: Path) -> list[str]:
    for name in ("first.log", "second.log"):
        (tmp_path / name).write_text(LOG)
    return [str(tmp_path / "first.log"), str(tmp_path / "second.log")]


def test_one_log_becomes_an_svg_with_its_words(logs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.svg"
    assert run(["plot", logs[0], "-o", str(out), "--title", "A run"]) == 0
    drawn = out.read_text()
    for word in ("A run", "train loss", "test accuracy", "learning rate", "iteration"):
        assert word in drawn


def test_many_logs_become_one_png(logs: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert run(["plot", *logs, "-x", "seconds", "-o", str(out)]) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "out.jpg"], "-o must end in one of .png, .svg, .pdf, got out.jpg"),
        (["-o", "out.svg", "-x", "epochs"], "--against must be one of iteration, seconds, got epochs"),
        (["absent.log", "-o", "out.svg"], "absent.log: must be a readable log"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(
    words: list[str], told: str, logs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["plot", logs[0], *words]) == 1
    assert told in capsys.readouterr().err
