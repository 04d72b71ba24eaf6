"""Mode, device, log and ranks: what Caffe keeps once a process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import BackendError, ConfigError
from dtrain.pycaffe import process
from tests.pycaffe.nets import TRAINED, write_net, write_solver

STANDARD_TYPES = (
    *("Convolution", "Data", "DummyData", "Eltwise", "InnerProduct", "Input", "LRN", "Pooling", "Python"),
    *("ReLU", "Sigmoid", "Softmax", "SoftmaxWithLoss", "Split", "TanH"),
)


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    process.process.cache_clear()
    yield
    handler = process.process().handler
    if handler is not None:
        handler.close()
    process.process.cache_clear()


def test_the_list_of_layer_types_has_the_standard_ones() -> None:
    assert set(STANDARD_TYPES) <= set(caffe.layer_type_list())


def test_phases_and_version_are_caffes() -> None:
    assert (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert caffe.__version__.startswith("1.0")


def test_gpu_mode_without_a_gpu_is_an_error_and_cpu_mode_is_not() -> None:
    caffe.set_mode_cpu()
    caffe.set_device(3)
    with pytest.raises(BackendError, match=r"GPU 3 must be usable, got none.*set_mode_cpu\(\)"):
        caffe.set_mode_gpu()


def test_solvers_in_other_numbers_than_processes_are_refused(tmp_path: Path) -> None:
    assert (caffe.solver_count(), caffe.solver_rank(), caffe.has_nccl()) == (1, 0, False)
    caffe.set_solver_rank(0)
    caffe.set_multiprocess(True)
    caffe.set_solver_count(2)
    assert caffe.solver_count() == 2
    with pytest.raises(ConfigError, match=r"processes \(1\), got 2; start the script with mpirun -n 2"):
        caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, TRAINED)))
    caffe.set_solver_count(1)
    caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, TRAINED)))


def test_log_lines_have_glogs_form(capsys: pytest.CaptureFixture[str]) -> None:
    caffe.init_log()
    caffe.log("hello")
    line = capsys.readouterr().err
    assert line.startswith("I")
    assert "test_process.py" in line
    assert line.endswith("] hello\n")
    caffe.init_log(1, True)
    caffe.log("unheard")
    logging.getLogger("dtrain").warning("heard")
    assert [part.split("] ")[1] for part in capsys.readouterr().err.splitlines()] == ["heard"]
    caffe.init_log(0, False)
    caffe.log("unheard")
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="level must be from 0 to 3, got 4"):
        caffe.init_log(4)


def test_a_stopwatch_measures_milliseconds() -> None:
    timer = caffe.Timer()
    timer.start()
    time.sleep(0.02)
    timer.stop()
    assert 15 < timer.ms < 5000
