"""Any number of ranks trains one and the same net."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import CommError, SnapshotError
from dtrain.metrics.reporter import Step
from dtrain.solvers.loop import Solver
from dtrain.solvers.snapshots import newest
from tests.solvers import golden
from tests.solvers.events import Heard
from tests.solvers.nets import bits, make_lmdb, make_solver

GLOBAL_BATCH = 12


@pytest.fixture(scope="module")
def records(comm: Communicator) -> Iterator[Path]:
    """One LMDB, in a folder that all ranks see: LMDB refuses a new one in the place of one that is open."""
    made = tempfile.mkdtemp() if comm.rank == 0 else None
    folder = Path(comm.allgather_object(made)[0])
    if comm.rank == 0:
        make_lmdb(folder)
    comm.barrier()
    yield folder / "tiny_lmdb"
    comm.barrier()
    if comm.rank == 0:
        shutil.rmtree(folder)


@pytest.fixture
def source(comm: Communicator, records: Path) -> Iterator[Path]:
    """The LMDB, with no snapshots beside it."""
    yield records
    comm.barrier()
    if comm.rank == 0:
        for file in records.parent.iterdir():
            if file.is_file():
                file.unlink()
    comm.barrier()


def losses_of(solver: Solver, heard: Heard, iters: int) -> list[float]:
    solver.param.display = 1
    solver.step(iters)
    return [display.loss for display in heard.displays()]


def alone_and_together(
    source: Path, comm: Communicator, settings: str
) -> tuple[tuple[Solver, Heard], tuple[Solver, Heard]]:
    """The same training by one rank and by all, with equal weights to start from."""
    pair = []
    for group in (SingleCommunicator(), comm):
        heard = Heard()
        batch = GLOBAL_BATCH // group.size
        pair.append((make_solver(source, settings, comm=group, batch=batch, reporter=heard), heard))
    return pair[0], pair[1]


@pytest.mark.world_size(2, 4)
@pytest.mark.parametrize(
    "settings", ["", "iter_size: 2", "clip_gradients: 0.3", 'type: "Adam" base_lr: 0.01']
)
def test_ranks_times_batch_and_one_rank_have_the_same_losses_and_weights(
    comm: Communicator, source: Path, settings: str
) -> None:
    (alone, heard), (together, heard_too) = alone_and_together(source, comm, settings)
    expected = losses_of(alone, heard, 8)
    np.testing.assert_allclose(losses_of(together, heard_too, 8), expected, rtol=2e-4)
    for mine, theirs in zip(together.net.params.owned, alone.net.params.owned, strict=True):
        np.testing.assert_allclose(mine.blob.data.plain(), theirs.blob.data.plain(), rtol=2e-3, atol=2e-4)
    assert len(set(expected)) == 8


@pytest.mark.world_size(2)
@pytest.mark.parametrize("name", ["sgd_step", "sgd_clip_itersize", "sgd_shared", "adam"])
def test_two_ranks_with_half_of_a_batch_each_have_the_weights_of_caffe(comm: Communicator, name: str) -> None:
    solver = golden.make_solver(name, comm=comm, batch=3)
    golden.start_as_caffe(solver, name)
    solver.param.ClearField("snapshot")
    while solver.iter < 12:
        golden.feed(solver, slice(3 * comm.rank, 3 * comm.rank + 3))
        solver.step(1)
        golden.assert_weights(solver, golden.weights_at(name, solver.iter), f"after {solver.iter}")


@pytest.mark.world_size(1, 2, 4)
@pytest.mark.parametrize("test_iter", [1, 5, 6])
def test_score_is_the_same_at_any_number_of_ranks_bit_for_bit(
    comm: Communicator, source: Path, test_iter: int
) -> None:
    settings = f"test_iter: {test_iter} test_interval: 1 test_compute_loss: true"
    (alone, heard), (together, heard_too) = alone_and_together(source, comm, settings)
    for _ in range(3):
        assert alone.test()
        assert together.test()
    for mine, theirs in zip(heard_too.scores(), heard.scores(), strict=True):
        assert (mine.outputs, mine.loss) == (theirs.outputs, theirs.loss)
    assert len({score.loss for score in heard.scores()}) == (3 if test_iter < 9 else 1)


@pytest.mark.world_size(2, 4)
def test_ranks_start_from_the_weights_of_rank_0(comm: Communicator, source: Path) -> None:
    solver = make_solver(source, comm=comm, seed=comm.rank)
    assert len(set(comm.allgather_object(bits(solver)))) == 1


@pytest.mark.world_size(2)
def test_replicas_that_differ_are_found_at_the_snapshot(comm: Communicator, source: Path) -> None:
    solver = make_solver(source, comm=comm)
    if comm.rank == 1:
        solver.net.params.owned[0].blob.data.plain_mutable().reshape(-1)[3] += 1
    with pytest.raises(CommError, match=r"iteration 0: weights and history: the replicas must be equal"):
        solver.snapshot()


@pytest.mark.world_size(2)
def test_five_and_five_iterations_of_two_ranks_are_ten_bit_for_bit(comm: Communicator, source: Path) -> None:
    whole = make_solver(source, comm=comm)
    whole.step(10)
    first = make_solver(source, comm=comm)
    first.step(5)
    first.snapshot(wait=True)
    comm.barrier()
    state = newest(source.parent / "tiny")
    assert state is not None
    second = make_solver(source, comm=comm, seed=50)
    second.restore(state)
    second.step(5)
    assert bits(second) == bits(whole)


@pytest.mark.world_size(2)
def test_run_of_one_rank_goes_on_at_two_ranks_with_the_next_samples(comm: Communicator, source: Path) -> None:
    (alone, heard), (together, heard_too) = alone_and_together(source, comm, "")
    losses_of(alone, heard, 4)
    if comm.rank == 0:
        alone.snapshot(wait=True)
    comm.barrier()
    together.restore(source.parent / "tiny_iter_4.solverstate")
    assert together.net.layer("data").position() == 4 * GLOBAL_BATCH  # type: ignore[attr-defined]
    expected = losses_of(alone, heard, 4)[4:]
    np.testing.assert_allclose(losses_of(together, heard_too, 4), expected, rtol=2e-4)


@pytest.mark.world_size(2)
def test_snapshot_that_only_one_rank_cannot_read_is_an_error_on_all(comm: Communicator, source: Path) -> None:
    solver = make_solver(source, comm=comm)
    with pytest.raises((SnapshotError, CommError), match=r"absent_iter_1\.solverstate"):
        solver.restore(source.parent / "absent_iter_1.solverstate")


@pytest.mark.world_size(2, 4)
def test_signal_to_one_rank_stops_all_after_the_same_step(comm: Communicator, source: Path) -> None:
    def then(step: Step) -> None:
        if step.iteration == 3 and comm.rank == comm.size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    heard = Heard(then)
    solver = make_solver(source, comm=comm, reporter=heard)
    solver.solve()
    assert comm.allgather_object(solver.iter) == [4] * comm.size
    assert heard.names()[-1] == "stopped_early"
    assert newest(source.parent / "tiny") == source.parent / "tiny_iter_4.solverstate"


@pytest.mark.world_size(2)
def test_signal_during_a_test_ends_it_on_all_ranks(comm: Communicator, source: Path) -> None:
    heard = Heard()
    settings = "test_iter: 9 test_interval: 2 test_initialization: false"
    solver = make_solver(source, settings, comm=comm, reporter=heard)
    net = solver.test_nets[0]

    def stop(index: int) -> None:
        if index == 0 and net.scope.passes == 1 and comm.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    net.after_forward.append(stop)
    solver.solve()
    assert comm.allgather_object(solver.iter) == [2, 2]
    assert "test_interrupted" in heard.names()


@pytest.mark.world_size(2)
def test_failed_write_ends_all_ranks_with_an_error_after_the_training(
    comm: Communicator, source: Path
) -> None:
    if comm.rank == 0:
        (source.parent / "file").touch()
    comm.barrier()
    prefix = source.parent / "file" / "tiny"
    solver = make_solver(source, f'snapshot: 2 max_iter: 3 snapshot_prefix: "{prefix}"', comm=comm)
    with pytest.raises(CommError, match="the snapshot of iteration 2 must be written whole"):
        solver.solve()
    assert solver.iter == 3


@pytest.mark.world_size(2)
def test_running_statistics_are_averaged_before_tests_and_snapshots(comm: Communicator, source: Path) -> None:
    layer = 'layer { name: "bn" type: "BatchNorm" bottom: "ip1" top: "ip1" }'
    solver = make_solver(source, comm=comm, extra_layer=layer)
    solver.step(3)
    mean = solver.net.layer("bn").blobs[0].data
    own = comm.allgather_object(mean.plain().copy())
    assert (own[0] != own[1]).any()
    solver.snapshot(wait=True)
    np.testing.assert_allclose(mean.plain(), (own[0] + own[1]) / 2, rtol=1e-6)
    comm.barrier()
    other = make_solver(source, comm=comm, extra_layer=layer)
    other.restore(source.parent / "tiny_iter_3.solverstate")
    solver.step(2)
    other.step(2)
    assert bits(other) == bits(solver)
