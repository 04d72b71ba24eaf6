"""caffe.SGDSolver and the others."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import ConfigError
from dtrain.kernels.array import Plain
from tests.pycaffe.nets import SIMPLE, TRAINED, write_net, write_solver
from tests.shared import shared_path
from tests.solvers import golden

CLASSES = {
    "SGD": caffe.SGDSolver,
    "Nesterov": caffe.NesterovSolver,
    "AdaGrad": caffe.AdaGradSolver,
    "RMSProp": caffe.RMSPropSolver,
    "AdaDelta": caffe.AdaDeltaSolver,
    "Adam": caffe.AdamSolver,
}


@pytest.fixture
def solver(tmp_path: Path) -> caffe.SGDSolver:
    return caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, SIMPLE)))


def weights_of(net: caffe.Net) -> list[Plain]:
    return [blob.data.copy() for blobs in net.params.values() for blob in blobs]


def test_solve_trains_to_the_end(solver: caffe.SGDSolver) -> None:
    assert solver.iter == 0
    solver.solve()
    assert solver.iter == solver.param.max_iter == 20


def test_step_trains_so_many_iterations(solver: caffe.SGDSolver) -> None:
    before = weights_of(solver.net)
    solver.step(3)
    assert solver.iter == 3
    assert any((new != old).any() for new, old in zip(weights_of(solver.net), before, strict=True))


def test_apply_update_follows_the_diffs_of_the_script(solver: caffe.SGDSolver) -> None:
    weights = solver.net.layers[1].blobs[0]
    data = weights.data
    data[...] = 0
    weights.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(data, -0.1, rtol=1e-6)
    assert solver.iter == 0
    assert solver.lr == pytest.approx(0.1)


def test_a_changed_base_lr_counts_from_the_next_iteration_on(solver: caffe.SGDSolver) -> None:
    solver.param.base_lr = 0.0
    before = weights_of(solver.net)
    solver.step(1)
    for new, old in zip(weights_of(solver.net), before, strict=True):
        np.testing.assert_array_equal(new, old)


def test_nets_outlive_the_solver(solver: caffe.SGDSolver, tmp_path: Path) -> None:
    made = caffe.get_solver(write_solver(tmp_path, write_net(tmp_path, SIMPLE)))
    nets = [made.net, *made.test_nets]
    assert len(nets) == 2
    del made
    for net in nets:
        assert np.isfinite(sum(float(values.sum()) for values in weights_of(net)))
        assert net.forward()["loss"] > 0


def test_test_nets_have_the_weights_of_the_training_net(solver: caffe.SGDSolver) -> None:
    solver.step(2)
    for new, old in zip(weights_of(solver.net), weights_of(solver.test_nets[0]), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_snapshot_is_written_and_restored(tmp_path: Path) -> None:
    file = write_solver(tmp_path, write_net(tmp_path, TRAINED))
    rng = np.random.default_rng(0)
    batches = [(rng.standard_normal((8, 6)), rng.integers(3, size=8)) for _ in range(6)]

    def train(solver: caffe.SGDSolver, until: int) -> None:
        while solver.iter < until:
            solver.net.blobs["data"].data[...], solver.net.blobs["label"].data[...] = batches[solver.iter]
            solver.step(1)

    whole = caffe.SGDSolver(file)
    train(whole, 3)
    whole.snapshot()
    state = tmp_path / "model_iter_3.solverstate"
    assert state.is_file()
    assert (tmp_path / "model_iter_3.caffemodel").is_file()
    train(whole, 6)
    resumed = caffe.SGDSolver(file)
    resumed.restore(str(state))
    assert resumed.iter == 3
    train(resumed, 6)
    for new, old in zip(weights_of(resumed.net), weights_of(whole.net), strict=True):
        np.testing.assert_array_equal(new, old)


def test_callbacks_run_before_the_passes_and_before_the_update(solver: caffe.SGDSolver) -> None:
    heard: list[tuple[str, bool]] = []
    diff = solver.net.params["ip"][0].diff
    solver.add_callback(
        lambda: heard.append(("start", bool(diff.any()))),
        lambda: heard.append(("gradients", bool(diff.any()))),
    )
    solver.step(2)
    assert heard == [("start", False), ("gradients", True)] * 2


@pytest.mark.parametrize("kind", CLASSES)
def test_get_solver_makes_the_class_that_the_file_names(tmp_path: Path, kind: str) -> None:
    momentum = "0" if kind in ("AdaGrad", "RMSProp") else "0.9"
    text = f'type: "{kind}"; momentum: {momentum}; momentum2: 0.99; rms_decay: 0.9; delta: 1e-6'
    solver = caffe.get_solver(write_solver(tmp_path, write_net(tmp_path, SIMPLE), text))
    assert type(solver) is CLASSES[kind]
    solver.step(1)
    assert solver.iter == 1


def test_a_class_is_the_rule_whatever_the_file_says(tmp_path: Path) -> None:
    file = write_solver(tmp_path, write_net(tmp_path, SIMPLE), 'type: "Adam"')
    assert caffe.NesterovSolver(file).param.type == "Nesterov"
    unknown = write_solver(tmp_path, write_net(tmp_path, SIMPLE), 'type: "Adan"')
    with pytest.raises(
        ConfigError, match=r'solver.prototxt:\d+: unknown solver type "Adan"; did you mean "Adam"'
    ):
        caffe.get_solver(unknown)


@pytest.mark.parametrize("name", ["sgd_step", "nesterov", "adam_inv", "sgd_clip"])
def test_a_loop_of_steps_has_caffes_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = shared_path("golden", "solvers")
    text = (
        (folder / f"{name}.solver.prototxt").read_text().replace("net.prototxt", str(folder / "net.prototxt"))
    )
    text = text.replace("snapshot: 6", "snapshot: 0")
    tmp_path.joinpath("solver.prototxt").write_text(text)
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    for (layer, j), value in golden.weights_at(name, 0).items():
        solver.net.params[layer][j].data[...] = value
    held = {layer: solver.net.params[layer][0].data for layer in solver.net.params}
    losses = []
    for it in range(12):
        for blob in ("data", "label"):
            solver.net.blobs[blob].data[...] = golden.stored()[blob][it]
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        for (layer, j), value in golden.weights_at(name, it + 1).items():
            if j == 0:
                np.testing.assert_allclose(held[layer], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(losses, golden.stored()[f"{name}|loss"], rtol=1e-4)


def test_ctrl_c_ends_the_iteration_and_then_the_script(solver: caffe.SGDSolver) -> None:
    solver.add_callback(lambda: os.kill(os.getpid(), signal.SIGINT), lambda: None)
    with pytest.raises(KeyboardInterrupt):
        solver.step(5)
    assert solver.iter == 1
    with pytest.raises(KeyboardInterrupt):
        solver.solve()
    assert solver.iter == 2


def test_steps_are_told_in_caffes_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, SIMPLE), "display: 1"))
    with caplog.at_level(logging.INFO, "dtrain"):
        solver.step(1)
    lines = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("Iteration 0 (") and "loss = " in line for line in lines)
    assert any(line.startswith("Iteration 0, lr = 0.1") for line in lines)
