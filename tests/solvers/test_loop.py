"""The loop does in every iteration what Caffe's does, in its order, and tells of it."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.metrics.reporter import Start, Step
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings
from dtrain.solvers.signals import Signals, effect_of
from dtrain.solvers.smoothing import SmoothedLoss
from dtrain.solvers.votes import Request
from tests.solvers.events import Heard
from tests.solvers.nets import make_lmdb, make_solver


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_lmdb(tmp_path)


def test_solve_tells_start_tests_displays_and_end_in_caffes_order(source: Path) -> None:
    heard = Heard()
    solver = make_solver(
        source, "max_iter: 4 display: 2 test_iter: 2 test_interval: 2 iter_size: 2", reporter=heard
    )
    solver.solve()
    assert heard.names() == [
        *("start", "testing", "test", "display", "step", "step"),
        *("testing", "test", "display", "step", "step"),
        *("final_loss", "testing", "test", "done"),
    ]
    (start,) = heard.of("start")
    assert start == Start("tiny", "SGD", "step", 0, 4, 1, 8)
    assert [display.iteration for display in heard.displays()] == [0, 2]
    assert [display.iterations for display in heard.displays()] == [0, 2]
    assert [round(display.lr, 6) for display in heard.displays()] == [0.1, 0.1]
    steps = [step for step in heard.of("step") if isinstance(step, Step)]
    assert [(step.iteration, step.samples) for step in steps] == [(1, 8), (2, 8), (3, 8), (4, 8)]
    assert all(min(step.seconds) >= 0 for step in steps)
    assert heard.of("testing") == [(0, 0), (2, 0), (4, 0)]


def test_display_shows_the_mean_of_the_last_losses_and_the_outputs_of_the_last(source: Path) -> None:
    heard = Heard()
    solver = make_solver(source, "max_iter: 5 display: 1 average_loss: 3", reporter=heard)
    losses = []
    solver.on_gradients_ready.append(lambda: losses.append(float(solver.net.blob("loss").data.plain())))
    solver.step(5)
    for it, display in enumerate(heard.displays()):
        assert display.loss == pytest.approx(np.mean(losses[max(0, it - 2) : it + 1]))
        assert [(o.name, o.value, o.loss_weight) for o in display.outputs] == [("loss", losses[it], 1.0)]


def test_smoothed_loss_is_a_running_mean_over_its_window() -> None:
    smoothed = SmoothedLoss(2)
    seen = []
    for loss in (4.0, 2.0, 6.0, 0.0):
        smoothed.add(loss)
        seen.append(smoothed.value)
    assert seen == [4.0, 3.0, 4.0, 3.0]
    smoothed.restart()
    smoothed.add(1.0)
    assert smoothed.value == 1.0


def test_test_initialization_can_be_turned_off(source: Path) -> None:
    heard = Heard()
    settings = "max_iter: 2 test_iter: 1 test_interval: 2 test_initialization: false"
    make_solver(source, settings, reporter=heard).solve()
    assert heard.of("testing") == [(2, 0)]


def test_score_is_the_mean_of_the_losses_and_all_correct_labels_over_all_labels(source: Path) -> None:
    heard = Heard()
    settings = "test_iter: 3 test_interval: 1 test_compute_loss: true"
    solver = make_solver(source, settings, reporter=heard)
    net = solver.test_nets[0]
    losses, correct = [], 0
    for _ in range(3):
        losses.append(net.forward())
        correct += net.layer("accuracy").correct  # type: ignore[attr-defined]
    assert solver.test()
    (score,) = heard.scores()
    found = {output.name: output.value for output in score.outputs}
    assert score.loss == pytest.approx(found["loss"])
    net.layer("data").seek(0)  # type: ignore[attr-defined]
    assert solver.test()
    first = {output.name: output.value for output in heard.scores()[1].outputs}
    assert first["accuracy"] == correct / 15
    assert first["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_callbacks_run_before_forward_and_with_the_gradients_ready(source: Path) -> None:
    solver = make_solver(source)
    order = []
    solver.on_start.append(lambda: order.append("start"))
    solver.net.before_forward.append(lambda index: order.append("forward") if index == 0 else None)
    weight = solver.net.params.owned[0].blob

    def ready() -> None:
        order.append("ready" if weight.diff.plain().any() else "no gradient")
        weight.diff.plain_mutable()[...] = 0

    solver.on_gradients_ready.append(ready)
    solver.param.weight_decay = 0
    solver.step(1)
    assert order == ["start", "forward", "ready"]


def test_gradients_that_a_callback_changes_are_those_that_are_followed(source: Path) -> None:
    solver = make_solver(source, "weight_decay: 0")
    weight = solver.net.params.owned[0].blob
    before = weight.data.plain().copy()
    solver.on_gradients_ready.append(lambda: weight.diff.plain_overwrite().fill(1))
    solver.step(1)
    np.testing.assert_allclose(weight.data.plain(), before - 0.1, rtol=1e-5)


def test_debug_info_prints_the_lines_of_caffe_where_a_display_is_due(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dtrain")
    make_solver(source, "display: 2 debug_info: true").step(2)
    lines = [record.getMessage() for record in caplog.records if "ward]" in record.getMessage()]
    kinds = [line.rsplit(":", 1)[0] for line in lines]
    assert kinds == [
        *("    [Forward] Layer data, top blob data data", "    [Forward] Layer data, top blob label data"),
        "    [Forward] Layer ip1, top blob ip1 data",
        *(f"    [Forward] Layer ip1, param blob {j} data" for j in (0, 1)),
        "    [Forward] Layer drop, top blob ip1 data",
        "    [Forward] Layer tanh, top blob tanh data",
        "    [Forward] Layer ip2, top blob ip2 data",
        *(f"    [Forward] Layer ip2, param blob {j} data" for j in (0, 1)),
        "    [Forward] Layer loss, top blob loss data",
        "    [Backward] Layer loss, bottom blob ip2 diff",
        "    [Backward] Layer ip2, bottom blob tanh diff",
        *(f"    [Backward] Layer ip2, param blob {j} diff" for j in (0, 1)),
        "    [Backward] Layer tanh, bottom blob ip1 diff",
        "    [Backward] Layer drop, bottom blob ip1 diff",
        *(f"    [Backward] Layer ip1, param blob {j} diff" for j in (0, 1)),
        lines[-1].rsplit(":", 1)[0],
    ]
    assert lines[-1].startswith("    [Backward] All net params (data, diff): L1 norm = (")


def test_loss_that_is_no_number_is_warned_of_once_with_iteration_and_place(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = make_solver(source)
    solver.step(2)
    solver.net.layer("ip2").blobs[1].data.plain_mutable()[0] = math.nan
    solver.step(3)
    assert solver.iter == 5
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning.startswith("Iteration 2: loss is nan on rank 0; the weights ip2[1] are not finite")


def interrupting(number: int, at: int) -> Heard:
    """Sends this process a signal after an iteration."""

    def then(step: Step) -> None:
        if step.iteration == at:
            os.kill(os.getpid(), number)

    return Heard(then)


@pytest.mark.parametrize(
    ("number", "stops", "files"),
    [(signal.SIGINT, True, []), (signal.SIGHUP, False, [4]), (signal.SIGTERM, True, [4])],
)
def test_signal_is_acted_upon_after_the_next_step(
    source: Path, number: signal.Signals, stops: bool, files: list[int]
) -> None:
    former = signal.getsignal(number)
    heard = interrupting(number, at=3)
    solver = make_solver(source, reporter=heard)
    solver.solve()
    assert solver.iter == (4 if stops else 10)
    assert heard.names()[-1] == ("stopped_early" if stops else "done")
    manifests = source.parent.glob("*.dtrain.json")
    found = sorted(int(file.name.split("_")[-1].split(".")[0]) for file in manifests)
    assert found == files
    assert signal.getsignal(number) == former


def test_interrupted_run_takes_its_last_snapshot_where_caffe_does(source: Path) -> None:
    solver = make_solver(source, "snapshot_after_train: true", reporter=interrupting(signal.SIGINT, at=2))
    solver.solve()
    assert (source.parent / "tiny_iter_3.solverstate").exists()


def test_effects_of_signals_can_be_chosen(source: Path) -> None:
    signals = Signals(sigint=effect_of("none", "-sigint_effect"), sighup=effect_of("stop", "-sighup_effect"))
    solver = make_solver(source, signals=signals, reporter=interrupting(signal.SIGINT, at=3))
    solver.solve()
    assert solver.iter == 10
    other = make_solver(source, signals=signals, reporter=interrupting(signal.SIGHUP, at=3))
    other.solve()
    assert other.iter == 4
    assert effect_of("snapshot", "") == Request.SNAPSHOT


def test_signal_during_a_test_ends_it_and_the_next_test_begins_anew(source: Path) -> None:
    heard = Heard()
    solver = make_solver(source, "test_iter: 6 test_interval: 5 test_initialization: false", reporter=heard)
    net = solver.test_nets[0]
    net.after_forward.append(
        lambda index: (
            os.kill(os.getpid(), signal.SIGTERM)
            if index == 0 and net.scope.passes == 2 and solver.iter == 5
            else None
        )
    )
    solver.solve()
    assert solver.iter == 5
    assert heard.names()[-4:] == ["snapshot", "snapshot", "snapshot_done", "stopped_early"]
    assert "test_interrupted" in heard.names()
    assert net.scope.passes < 6
    assert net.layer("data").position() == 0  # type: ignore[attr-defined]
    assert solver.step(5)
    assert solver.iter == 10


def test_second_interrupt_forces_the_end_if_it_is_another_key_press(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # a terminal and mpirun both hand on one key press
        assert signals.pending() == Request.STOP
        later = time.monotonic() + 1.5
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_step_alone_leaves_signals_to_the_script(source: Path) -> None:
    solver = make_solver(source, reporter=interrupting(signal.SIGINT, at=2))
    with pytest.raises(KeyboardInterrupt):
        solver.step(5)


def test_net_without_weights_can_be_run(tmp_path: Path) -> None:
    param = pb.SolverParameter()
    text.parse(
        """base_lr: 1 lr_policy: "fixed" type: "Adam" momentum: 0.9 clip_gradients: 1 net_param {
        layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
        layer { name: "loss" type: "EuclideanLoss" bottom: "data" bottom: "data" top: "loss" } }""",
        param,
    )
    param.snapshot_prefix = str(tmp_path / "none")
    net = build_train_net(Settings(param), CpuBackend(), SingleCommunicator(), 1)
    solver = Solver(param, net)
    solver.step(2)
    solver.snapshot(wait=True)
    solver.restore(tmp_path / "none_iter_2.solverstate")
    assert solver.iter == 2
