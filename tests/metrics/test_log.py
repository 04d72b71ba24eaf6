"""Log lines: what Caffe prints, and what parsers written for Caffe read from ours."""

import io
import json
import logging
import re
from pathlib import Path

import pytest

from dtrain.errors import ConfigError
from dtrain.metrics.jsonl import JsonLog
from dtrain.metrics.log import GlogFormatter, number
from dtrain.metrics.progress import Show, open_reporter
from dtrain.metrics.reporter import Display, Output, Score, Snapshot
from tests.metrics.events import START, short_run

# severity, date, time, thread, place: the prefix that glog documents
PREFIX = re.compile(r"^([IWEF])(\d{4}) (\d\d:\d\d:\d\d\.\d{6}) +(\d+) ([\w.]+:\d+)\] (.*)$")


def bodies(lines: list[str]) -> list[tuple[str, str]]:
    matches = [PREFIX.match(line) for line in lines]
    assert None not in matches
    return [(match[5], match[6]) for match in matches if match]


@pytest.fixture
def log() -> list[str]:
    stream = io.StringIO()
    report = open_reporter(stream, rank=0)
    short_run(report)
    report.close()
    return stream.getvalue().splitlines()


def test_a_run_prints_what_caffe_prints(log: list[str]) -> None:
    assert bodies(log) == [
        ("solver.cpp:272", "Solving LeNet"),
        ("solver.cpp:273", "Learning Rate Policy: inv"),
        ("solver.cpp:330", "Iteration 0, Testing net (#0)"),
        ("solver.cpp:397", "    Test net output #0: accuracy = 0.0925"),
        ("solver.cpp:397", "    Test net output #1: loss = 2.34568 (* 1 = 2.34568 loss)"),
        ("solver.cpp:218", "Iteration 0 (0 iter/s, 8.125s/100 iters), loss = 2.25"),
        ("solver.cpp:237", "    Train net output #0: loss = 2.25 (* 1 = 2.25 loss)"),
        ("sgd_solver.cpp:105", "Iteration 0, lr = 0.01"),
        ("solver.cpp:218", "Iteration 100 (12.3077 iter/s, 8.125s/100 iters), loss = 1.25"),
        ("solver.cpp:237", "    Train net output #0: loss = 1.25 (* 1 = 1.25 loss)"),
        ("sgd_solver.cpp:105", "Iteration 100, lr = 0.01"),
        ("solver.cpp:447", "Snapshotting to binary proto file runs/lenet_iter_200.caffemodel"),
        (
            "sgd_solver.cpp:273",
            "Snapshotting solver state to binary proto file runs/lenet_iter_200.solverstate",
        ),
        ("solver.cpp:310", "Iteration 200, loss = 0.25"),
        ("solver.cpp:330", "Iteration 200, Testing net (#0)"),
        ("solver.cpp:397", "    Test net output #0: accuracy = 0.9914"),
        ("solver.cpp:397", "    Test net output #1: loss = 0.0285 (* 1 = 0.0285 loss)"),
        ("solver.cpp:315", "Optimization Done."),
    ]


def test_a_table_parser_reads_iteration_loss_lr_and_scores(log: list[str]) -> None:
    """The patterns that Caffe's parse_log.py searches for, with its rule that values follow an iteration."""
    iteration, lr, train, test = -1, float("nan"), {}, {}
    for line in log:
        if found := re.search(r"Iteration (\d+)", line):
            iteration = int(found[1])
        if found := re.search(r"lr = ([-+]?[0-9]*\.?[0-9]+([eE]?[-+]?[0-9]+)?)", line):
            lr = float(found[1])
        for table, phase in ((train, "Train"), (test, "Test")):
            if found := re.search(phase + r" net output #(\d+): (\S+) = ([\.\deE+-]+)", line):
                table[iteration, found[2]] = float(found[3])
    assert lr == 0.01
    assert train == {(0, "loss"): 2.25, (100, "loss"): 1.25}
    assert test == {
        (0, "accuracy"): 0.0925,
        (0, "loss"): 2.34568,
        (200, "accuracy"): 0.9914,
        (200, "loss"): 0.0285,
    }


def test_a_column_parser_finds_time_and_values_where_caffe_has_them(log: list[str]) -> None:
    """Caffe's shell and seconds tools split at blanks: date, time, then fixed columns (counted from 0)."""
    solving = next(line for line in log if "] Solving " in line).split()
    assert (len(solving[0]), solving[0][0]) == (5, "I")
    assert 1 <= int(solving[0][1:3]) <= 12
    assert 1 <= int(solving[0][3:]) <= 31
    hour, minute, second = solving[1].split(".")[0].split(":")
    assert (int(hour) < 24, int(minute) < 60, int(second) < 61) == (True, True, True)
    assert len(solving[1].split(".")[1]) == 6
    scores = [line.split()[10] for line in log if "Test net output #0" in line]
    assert scores == ["0.0925", "0.9914"]
    rates = [line.split()[8] for line in log if ", lr = " in line]
    assert rates == ["0.01", "0.01"]
    losses = [line.split("=")[1].split()[0] for line in log if ", loss = " in line]
    assert losses == ["2.25", "1.25", "0.25"]


def test_numbers_have_six_digits_as_a_cpp_stream_prints_them() -> None:
    values = [2.3456789, 1e-5, 0.0001, 123456.0, 1234567.0, 0.0, float("nan"), float("inf")]
    assert [number(value) for value in values] == [
        *("2.34568", "1e-05", "0.0001", "123456", "1.23457e+06", "0", "nan", "inf")
    ]


def test_events_that_are_rare_have_caffes_lines_too() -> None:
    stream = io.StringIO()
    report = open_reporter(stream, rank=0)
    report.start(START._replace(resumed_from="a.solverstate"))
    report.test(Score(500, 1, [Output("l2_error", 7.0)], loss=0.5))
    report.snapshot(Snapshot(5, "a.caffemodel.h5", hdf5=True))
    report.snapshot(Snapshot(5, "a.solverstate.h5", "solver state", hdf5=True))
    report.test_interrupted()
    report.stopped_early()
    report.close()
    assert bodies(stream.getvalue().splitlines())[2:] == [
        ("solver.cpp:279", "Restoring previous solver status from a.solverstate"),
        ("solver.cpp:384", "Test loss: 0.5"),
        ("solver.cpp:397", "    Test net output #0: l2_error = 7"),
        ("solver.cpp:457", "Snapshotting to HDF5 file a.caffemodel.h5"),
        ("sgd_solver.cpp:283", "Snapshotting solver state to HDF5 file a.solverstate.h5"),
        ("solver.cpp:379", "Test interrupted."),
        ("solver.cpp:294", "Optimization stopped early."),
    ]


@pytest.mark.parametrize(
    ("level", "letter"),
    [("debug", "I"), ("info", "I"), ("warning", "W"), ("error", "E"), ("critical", "F")],
)
def test_severity_and_own_place_lead_every_line(level: str, letter: str) -> None:
    value = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}[level]
    record = logging.LogRecord("dtrain.net", value, "/x/dtrain/net.py", 42, "one\ntwo %d", (2,), None)
    record.created, record.process = 1_000_000_000.987654, 77
    first, second = GlogFormatter().format(record).split("\n")
    for line, text in ((first, "one"), (second, "two 2")):
        match = PREFIX.match(line)
        assert match is not None
        assert (match[1], match[4], match[5], match[6]) == (letter, "77", "net.py:42", text)
        assert match[3].endswith(".987654")
        assert line[21:27] == "    77"


def test_other_ranks_tell_only_warnings() -> None:
    stream = io.StringIO()
    report = open_reporter(stream, rank=1, show=Show.ON)
    short_run(report)
    logging.getLogger("dtrain.data").info("not this")
    logging.getLogger("dtrain.data").warning("but this")
    report.close()
    assert [text for _, text in bodies(stream.getvalue().splitlines())] == ["but this"]


def test_closing_leaves_the_logger_as_it_was() -> None:
    logger = logging.getLogger("dtrain")
    before = (logger.level, list(logger.handlers))
    report = open_reporter(io.StringIO(), rank=0)
    assert (logger.level, list(logger.handlers)) != before
    report.close()
    assert (logger.level, list(logger.handlers)) == before


def test_json_lines_hold_one_object_an_event(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "run.jsonl"
    report = open_reporter(io.StringIO(), rank=0, log_json=path)
    short_run(report)
    report.close()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["event"] for event in events] == [
        *("start", "testing", "test", "display", "display", "snapshot", "snapshot", "snapshot_done"),
        *("final_loss", "testing", "test", "done"),
    ]
    assert events[4]["loss"] == 1.25
    assert events[4]["outputs"] == [{"name": "loss", "value": 1.25, "loss_weight": 1.0}]
    assert events[-2]["outputs"][0] == {"name": "accuracy", "value": 0.9914, "loss_weight": 0.0}
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_json_lines_stay_json_when_the_loss_is_not_a_number(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "run.jsonl", logging.getLogger("dtrain"))
    log.display(Display(1, float("nan"), float("-inf"), 1, 1.0, 1))
    log.close()
    event = json.loads((tmp_path / "run.jsonl").read_text(), parse_constant=pytest.fail)
    assert (event["loss"], event["lr"]) == ("NaN", "-Infinity")


def test_a_json_path_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--log-json: path must be writable"):
        JsonLog(tmp_path, logging.getLogger("dtrain"))


def test_only_rank_0_writes_json_lines(tmp_path: Path) -> None:
    report = open_reporter(io.StringIO(), rank=1, log_json=tmp_path / "run.jsonl")
    short_run(report)
    report.close()
    assert not (tmp_path / "run.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_told_once_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    log = JsonLog(Path("/dev/full"), logging.getLogger("dtrain"))
    with caplog.at_level(logging.WARNING):
        log.done()
        log.done()
        log.close()
    assert caplog.text.count("no more events go to /dev/full: No space left") == 1
