"""A run goes on from a snapshot as if it had never stopped, and a snapshot is whole or none."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from dtrain.errors import DtrainError, SnapshotError, WeightsError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_binary
from dtrain.solvers.snapshots import newest
from tests.shared import shared_path
from tests.solvers import golden
from tests.solvers.nets import bits, make_lmdb, make_solver

WITH_SNAPSHOTS = ["adadelta", "adam", "nesterov", "sgd_shared", "sgd_step"]
FORMATS = ["", "snapshot_format: HDF5"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_lmdb(tmp_path)


@pytest.mark.parametrize("name", WITH_SNAPSHOTS)
def test_snapshot_of_caffe_goes_on_to_the_weights_of_caffe(name: str) -> None:
    solver = golden.make_solver(name)
    solver.restore(shared_path("golden", "solvers", f"{name}_iter_6.solverstate"))
    assert solver.iter == 6
    golden.assert_weights(solver, golden.weights_at(name, 6), "restored")
    golden.train(solver, 12)
    golden.assert_weights(solver, golden.weights_at(name, 12), "after 12")


@pytest.mark.parametrize("name", WITH_SNAPSHOTS)
def test_snapshot_holds_what_that_of_caffe_holds(name: str, tmp_path: Path) -> None:
    solver = golden.make_solver(name, prefix=tmp_path / "mine")
    golden.start_as_caffe(solver, name)
    golden.train(solver, 6)
    solver.close()
    mine, theirs = pb.SolverState(), pb.SolverState()
    read_binary(tmp_path / "mine_iter_6.solverstate", mine)
    read_binary(shared_path("golden", "solvers", f"{name}_iter_6.solverstate"), theirs)
    assert (mine.iter, mine.current_step) == (theirs.iter, theirs.current_step)
    assert mine.learned_net == str(tmp_path / "mine_iter_6.caffemodel")
    assert_same_blobs(list(mine.history), list(theirs.history))
    model, other = pb.NetParameter(), pb.NetParameter()
    read_binary(tmp_path / "mine_iter_6.caffemodel", model)
    read_binary(shared_path("golden", "solvers", f"{name}_iter_6.caffemodel"), other)
    assert model.name == other.name
    assert [layer.name for layer in model.layer] == [layer.name for layer in other.layer]
    for layer, wanted in zip(model.layer, other.layer, strict=True):
        assert (layer.type, layer.bottom, layer.top) == (wanted.type, wanted.bottom, wanted.top)
        assert_same_blobs(list(layer.blobs), list(wanted.blobs))


def assert_same_blobs(mine: list[pb.BlobProto], theirs: list[pb.BlobProto]) -> None:
    assert len(mine) == len(theirs)
    for blob, wanted in zip(mine, theirs, strict=True):
        assert blob.shape.dim == wanted.shape.dim
        assert len(blob.diff) == len(wanted.diff)
        np.testing.assert_allclose(blob.data, wanted.data, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("engine", ["CAFFE", "DEFAULT"])
@pytest.mark.parametrize("settings", FORMATS)
def test_ten_iterations_are_five_a_snapshot_and_five_more_bit_for_bit(
    source: Path, settings: str, engine: str
) -> None:
    whole = make_solver(source, settings, engine=engine)
    whole.step(10)
    first = make_solver(source, settings, engine=engine)
    first.step(5)
    first.snapshot(wait=True)
    state = newest(source.parent / "tiny")
    assert state is not None
    second = make_solver(source, settings, engine=engine, seed=99)
    second.restore(state)
    assert second.iter == 5
    second.step(5)
    assert bits(second) == bits(whole)
    assert bits(first) != bits(whole)


def test_resumed_run_takes_up_the_stream_of_samples_the_passes_and_the_seed(source: Path) -> None:
    first = make_solver(source, "iter_size: 2")
    first.step(3)
    first.snapshot(wait=True)
    second = make_solver(source, "iter_size: 2", seed=99)
    second.restore(source.parent / "tiny_iter_3.solverstate")
    data = second.net.layer("data")
    assert data.position() == 3 * 2 * 4  # type: ignore[attr-defined]
    assert (second.net.scope.passes, second.net.scope.seed) == (6, 3)


def test_solve_takes_snapshots_at_the_interval_and_after_training(source: Path) -> None:
    solver = make_solver(source, "snapshot: 4", batch=2)
    solver.param.snapshot_after_train = True
    solver.solve()
    found = {file.name for file in source.parent.iterdir() if file.is_file()}
    assert found == {
        f"tiny_iter_{it}.{suffix}"
        for it in (4, 8, 10)
        for suffix in ("caffemodel", "solverstate", "dtrain.json")
    }


def test_snapshot_that_was_cut_short_is_passed_over_for_an_older_one(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    solver = make_solver(source, "snapshot: 1")
    solver.step(4)
    solver.close()
    folder = source.parent
    model = folder / "tiny_iter_4.caffemodel"
    model.write_bytes(model.read_bytes()[:-1])
    (folder / "tiny_iter_3.solverstate").unlink()
    (folder / "tiny_iter_2.dtrain.json").write_text("{")
    assert newest(folder / "tiny") == folder / "tiny_iter_1.solverstate"
    assert "tiny_iter_4.caffemodel has changed" in caplog.text
    assert "tiny_iter_3.solverstate is missing" in caplog.text
    with pytest.raises(SnapshotError, match=r"tiny_iter_4\.caffemodel has changed"):
        make_solver(source).restore(folder / "tiny_iter_4.solverstate")


def test_there_is_no_newest_snapshot_of_another_prefix_or_in_an_absent_folder(source: Path) -> None:
    solver = make_solver(source)
    solver.snapshot(wait=True)
    assert newest(source.parent / "tin") is None
    assert newest(source.parent / "absent" / "tiny") is None


def test_snapshot_that_cannot_be_written_is_a_warning_until_the_end(
    source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = source.parent / "file"
    file.touch()
    solver = make_solver(source, f'snapshot: 2 max_iter: 5 snapshot_prefix: "{file}/tiny"')
    with pytest.raises(SnapshotError, match="the snapshot of iteration 2 must be written whole"):
        solver.solve()
    assert solver.iter == 5
    assert "training goes on" in caplog.text


def test_snapshot_of_another_solver_type_is_refused(source: Path) -> None:
    make_solver(source).snapshot(wait=True)
    other = make_solver(source, 'type: "Nesterov"')
    with pytest.raises(SnapshotError, match=r"solver type must be Nesterov .* got a snapshot of SGD"):
        other.restore(source.parent / "tiny_iter_0.solverstate")


def test_history_of_another_number_of_slots_is_refused() -> None:
    with pytest.raises(SnapshotError, match="the number of history blobs must be 4, got 8"):
        golden.make_solver("sgd_step").restore(shared_path("golden", "solvers", "adam_iter_6.solverstate"))


@pytest.mark.parametrize("name", ["tiny_iter_7.solverstate", "tiny_iter_7.caffemodel"])
def test_absent_snapshot_is_named(source: Path, name: str) -> None:
    with pytest.raises(DtrainError, match=name):
        make_solver(source).restore(source.parent / name)


def test_snapshot_that_moved_is_read_with_the_model_beside_it(source: Path) -> None:
    solver = make_solver(source)
    solver.step(2)
    solver.snapshot(wait=True)
    elsewhere = source.parent / "elsewhere"
    elsewhere.mkdir()
    for file in source.parent.glob("tiny_iter_2.*"):
        shutil.move(file, elsewhere)
    other = make_solver(source)
    other.restore(elsewhere / "tiny_iter_2.solverstate")
    assert bits(other) == bits(solver)


def test_manifest_names_what_the_files_of_caffe_cannot_hold(source: Path) -> None:
    solver = make_solver(source, "test_iter: 2 test_interval: 2")
    solver.step(3)
    solver.snapshot(wait=True)
    stored = json.loads((source.parent / "tiny_iter_3.dtrain.json").read_text())
    assert stored["solver_type"] == "SGD"
    assert (stored["iteration"], stored["world_size"], stored["seed"]) == (3, 1, 3)
    assert stored["train"] == {"passes": 3, "samples": {"data": 12}}
    assert stored["test"] == [{"passes": 4, "samples": {"data": 20}}]
    assert list(stored["digests"]) == ["tiny_iter_3.caffemodel", "tiny_iter_3.solverstate"]


def test_snapshot_diff_keeps_gradients(source: Path) -> None:
    solver = make_solver(source, "snapshot_diff: true")
    solver.step(1)
    solver.snapshot(wait=True)
    model = pb.NetParameter()
    read_binary(source.parent / "tiny_iter_1.caffemodel", model)
    (layer,) = (layer for layer in model.layer if layer.name == "ip1")
    assert len(layer.blobs[0].diff) == len(layer.blobs[0].data) == 6 * 32


@pytest.mark.parametrize("settings", FORMATS)
def test_weights_of_a_layer_of_another_shape_are_refused_by_name(source: Path, settings: str) -> None:
    solver = make_solver(source, settings)
    solver.snapshot(wait=True)
    (model,) = source.parent.glob("*.caffemodel*")
    stranger = golden.make_solver("sgd_shared")
    with pytest.raises(WeightsError, match=r'layer "ip1" .* must be \(8, 98\), got \(6, 32\)'):
        stranger.load_weights(model)


def test_layers_that_the_net_lacks_are_ignored_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dtrain")
    solver = golden.make_solver("sgd_shared")
    before = [param.blob.data.plain().copy() for param in solver.net.params.owned]
    solver.load_weights(shared_path("golden", "solvers", "sgd_step_iter_6.caffemodel"))
    (line,) = (r.getMessage() for r in caplog.records if "Ignoring" in r.getMessage())
    assert line.endswith("Ignoring source layers that the net lacks: conv, relu, ip")
    for old, param in zip(before, solver.net.params.owned, strict=True):
        np.testing.assert_array_equal(old, param.blob.data.plain())
