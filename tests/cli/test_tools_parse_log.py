"""`dtrain parse_log`: the CSV files of Caffe's own script, from Caffe's lines and from ours."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest

from dtrain.cli.main import run
from dtrain.metrics.log import CaffeLog, GlogFormatter
from dtrain.metrics.reporter import Display, Output, Score

CAFFE_LOG = """\
Log file created at: 2014/12/31 23:59:50
I1231 23:59:50.000000  4242 caffe.cpp:218] Using GPUs 0
I1231 23:59:52.500000  4242 solver.cpp:330] Iteration 0, Testing net (#0)
I1231 23:59:53.500000  4242 solver.cpp:397]     Test net output #0: accuracy = 0.1
I1231 23:59:53.500000  4242 solver.cpp:397]     Test net output #1: loss = 2.3 (* 1 = 2.3 loss)
I1231 23:59:53.500000  4242 solver.cpp:330] Iteration 0, Testing net (#1)
I1231 23:59:53.500000  4242 solver.cpp:397]     Test net output #0: accuracy = 0.2
I1231 23:59:54.000000  4242 solver.cpp:218] Iteration 0 (0 iter/s, 4s/100 iters), loss = 2.31
I1231 23:59:54.000000  4242 solver.cpp:237]     Train net output #0: loss = 2.25 (* 1 = 2.25 loss)
I1231 23:59:54.000000  4242 sgd_solver.cpp:105] Iteration 0, lr = 0.01
I0101 00:00:00.000000  4242 solver.cpp:218] Iteration 100 (25 iter/s, 4s/100 iters), loss = 1e-05
I0101 00:00:00.000000  4242 solver.cpp:237]     Train net output #0: loss = nan (* 1 = nan loss)
I0101 00:00:00.000000  4242 sgd_solver.cpp:105] Iteration 100, lr = 0.005
I0101 00:00:01.000000  4242 solver.cpp:330] Iteration 100, Testing net (#0)
I0101 00:00:02.250000  4242 solver.cpp:397]     Test net output #0: accuracy = 0.75
I0101 00:00:02.250000  4242 solver.cpp:397]     Test net output #1: loss = 0.5 (* 1 = 0.5 loss)
I0101 00:00:03.000000  4242 solver.cpp:310] Iteration 100, loss = 0.
"""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_log_of_caffe_becomes_the_tables_of_its_script(tmp_path: Path) -> None:
    (tmp_path / "caffe.INFO").write_text(CAFFE_LOG)
    assert run(["parse_log", str(tmp_path / "caffe.INFO"), str(tmp_path)]) == 0
    train, test = rows_of(tmp_path / "caffe.INFO.train"), rows_of(tmp_path / "caffe.INFO.test")
    assert list(train[0]) == ["NumIters", "Seconds", "LearningRate", "loss"]
    assert [tuple(row.values()) for row in train] == [
        ("0.0", "4.0", "0.01", "2.25"),
        ("100.0", "10.0", "0.005", "nan"),
    ]
    assert list(test[0]) == ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"]
    assert [tuple(row.values()) for row in test] == [
        ("0.0", "3.5", "0.005", "0.1", "2.3"),
        ("100.0", "12.25", "0.005", "0.75", "0.5"),
    ]
    assert [row["accuracy"] for row in rows_of(tmp_path / "caffe.INFO.test.1")] == ["0.2"]


def test_the_lines_that_dtrain_writes_are_read(tmp_path: Path) -> None:
    logger = logging.getLogger("tests.cli.parse_log")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(tmp_path / "run.log")
    handler.setFormatter(GlogFormatter())
    logger.addHandler(handler)
    try:
        log = CaffeLog(logger)
        log.testing(0, 0)
        log.test(Score(iteration=0, net_id=0, outputs=[Output("accuracy", 0.5, 0.0)], seconds=1.0, loss=None))
        for iteration, lr in ((0, 0.1), (20, 1e-05)):
            outputs = [Output("loss", 1.5 + iteration, 1.0)]
            log.display(
                Display(
                    iteration=iteration,
                    loss=1.0,
                    lr=lr,
                    outputs=outputs,
                    iterations=20,
                    seconds=2.0,
                    every=20,
                )
            )
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert run(["parse_log", str(tmp_path / "run.log"), str(tmp_path)]) == 0
    train = rows_of(tmp_path / "run.log.train")
    assert [(row["NumIters"], row["LearningRate"], row["loss"]) for row in train] == [
        ("0.0", "0.1", "1.5"),
        ("20.0", "1e-05", "21.5"),
    ]
    assert [row["accuracy"] for row in rows_of(tmp_path / "run.log.test")] == ["0.5"]


def test_a_file_that_is_no_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.txt").write_text("cat.jpg 1\n")
    assert run(["parse_log", str(tmp_path / "list.txt"), str(tmp_path)]) == 1
    assert "must be a training log in Caffe's format" in capsys.readouterr().err
    assert not (tmp_path / "list.txt.train").exists()
