"""Sums between ranks on real cards; where there are fewer cards than ranks, on one card."""

from __future__ import annotations

import gc
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

import numpy as np
import pytest

from dtrain.cli.cards import card
from dtrain.cli.group import compression_of
from dtrain.comm.communicator import Communicator
from dtrain.comm.cupy_lane import CupyLane
from dtrain.comm.digest import check_equal
from dtrain.comm.nccl import NcclCommunicator, load, share_cards
from dtrain.comm.reducer import Reducer
from dtrain.comm.single import SingleCommunicator
from dtrain.comm.staged import StagedCommunicator
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from tests.cli.conftest import NET, SOLVER
from tests.cli.running import command, dtrain, surroundings
from tests.comm.test_failure import run_job
from tests.comm.test_nccl import squares, trained
from tests.solvers import golden

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

SLICES = [(0, 1000), (1000, 200_000), (200_000, 200_001), (200_001, 1_000_000)]
WARN_S, ABORT_S = 5.0, 15.0  # two ranks that share a card start slowly


@final
class Place:
    """This rank's card, and the communicator of all ranks there."""

    def __init__(self, comm: Communicator) -> None:
        from dtrain.comm.mpi import MpiCommunicator

        assert isinstance(comm, MpiCommunicator)
        self.comm = comm
        self.library = load()
        number = comm.rank % cupy_device.count()
        if len(set(comm.allgather_object(card(number).bus))) < comm.size:
            share_cards(self.library, comm.rank)
        self.device = CupyDevice(number)
        self.lane = CupyLane()

    def group(self, format: str = "") -> NcclCommunicator:
        compression = compression_of(CudaBackend(self.device), format) if format else None
        return NcclCommunicator(self.comm, self.lane, self.library, compression)

    def buffer(self, values: Any) -> Any:
        made = self.device.empty(values.size, values.dtype)
        self.device.upload(values, made)
        return made


@pytest.fixture(scope="module")
def place(comm: Communicator) -> Place:
    return Place(comm)


@pytest.fixture(scope="module")
def group(place: Place) -> Iterator[NcclCommunicator]:
    made = place.group()
    yield made
    gc.collect()  # graphs that hold its sums
    made.leave()


def values_of(rank: int, count: int, dtype: Any = np.float32) -> Any:
    rng = np.random.default_rng(rank)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(count).astype(dtype)
    return rng.integers(0, 100, count).astype(dtype)


@pytest.mark.world_size(2)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
@pytest.mark.parametrize("count", [1, 1000, 1_000_003])
def test_a_sum_is_right_and_the_same_on_all_ranks(
    place: Place, group: NcclCommunicator, count: int, dtype: Any
) -> None:
    array = place.buffer(values_of(group.rank, count, dtype))
    group.wait(group.allreduce(array, "sum"))
    found = group.on_host(array)
    expected = sum(values_of(rank, count, dtype) for rank in range(group.size))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    check_equal(group, "sum", [array])


@pytest.mark.world_size(2)
def test_a_broadcast_gives_all_ranks_the_array_of_the_root(place: Place, group: NcclCommunicator) -> None:
    for root in range(group.size):
        array = place.buffer(values_of(group.rank, 1001))
        group.broadcast(array, root)
        np.testing.assert_array_equal(group.on_host(array), values_of(root, 1001))


@pytest.mark.world_size(2)
def test_buckets_are_summed_behind_what_fills_them_and_before_what_reads_them(
    place: Place, group: NcclCommunicator
) -> None:
    import cupy

    diff, read = cupy.zeros(1_000_000, np.float32), cupy.zeros(1_000_000, np.float32)
    busy = cupy.ones((4096, 4096), np.float32)
    reducer = Reducer(group, diff, SLICES, bucket_bytes=400_000)
    for turn in range(20):
        cupy.matmul(busy, busy)  # the card is behind the host
        for i, (start, stop) in enumerate(SLICES):
            diff[start:stop] = group.rank + turn
            reducer.ready(i)
        reducer.finish()
        read[:] = diff
        diff.fill(np.nan)
        np.testing.assert_array_equal(read.get(), group.size * turn + sum(range(group.size)))


@pytest.mark.world_size(2)
@pytest.mark.parametrize("format", ["", "fp16", "bf16"])
def test_captured_sums_are_replayed(place: Place, format: str) -> None:
    import cupy

    group = place.group(format)
    diff, start = cupy.zeros(1_000_000, np.float32), cupy.zeros(1, np.float32)
    reducer = Reducer(group, diff, SLICES, bucket_bytes=400_000)

    def iterate() -> None:
        cupy.add(start, 1, out=start)
        cupy.multiply(diff, 0, out=diff)
        cupy.add(diff, start, out=diff)
        for i in range(len(SLICES)):
            reducer.ready(i)
        reducer.finish()

    for _ in range(2):
        iterate()
    place.lane.compute.begin_capture()
    iterate()
    graph = place.lane.compute.end_capture()
    for turn in range(3, 40):
        graph.launch(place.lane.compute)
        np.testing.assert_array_equal(diff.get()[::997], turn * group.size)
    assert group._progress.place == 0
    del graph
    gc.collect()
    group.leave()


@pytest.mark.world_size(2)
@pytest.mark.parametrize(("format", "tolerance"), [("fp16", 2**-11), ("bf16", 2**-8)])
@pytest.mark.parametrize("by", ["nccl", "staged"])
def test_compressed_sums_are_right_to_16_bits(place: Place, by: str, format: str, tolerance: float) -> None:
    compression = compression_of(CudaBackend(place.device), format)
    nccl = place.group(format) if by == "nccl" else None
    group: Any = nccl or StagedCommunicator(place.comm, place.lane, compression)
    mine = [np.append(values_of(rank, 1000), 40000).astype(np.float32) for rank in range(group.size)]
    array = place.buffer(mine[group.rank])
    for turn in range(2):
        place.device.upload(mine[group.rank], array)
        group.wait(group.allreduce(array, "sum"))
        found = group.on_host(array)
        assert (np.abs(found - np.sum(mine, axis=0)) <= tolerance * 2 * np.abs(mine).sum(axis=0)).all(), turn
    check_equal(place.comm, "sums", [found])
    if nccl is not None:
        nccl.leave()


@pytest.mark.world_size(2)
@pytest.mark.parametrize("by", ["nccl", "staged"])
@pytest.mark.parametrize("name", ["sgd_step", "adam"])
def test_two_ranks_have_the_weights_of_caffe(
    place: Place, group: NcclCommunicator, name: str, by: str
) -> None:
    comm: Any = group if by == "nccl" else StagedCommunicator(place.comm, place.lane)
    for (layer, j), values in trained(name, comm, place.device).items():
        expected = golden.weights_at(name, 12)[layer, j]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=2e-6, err_msg=f"{layer}[{j}]")


@pytest.mark.world_size(2)
@pytest.mark.parametrize(("format", "tolerance"), [("", 1e-5), ("bf16", 2e-2)])
def test_replayed_iterations_of_two_ranks_are_those_of_one_with_the_double_batch(
    place: Place, format: str, tolerance: float
) -> None:
    alone, _ = squares(SingleCommunicator(), place.device, replayed=False)
    group = place.group(format)
    together, num_graphs = squares(group, place.device, replayed=True)
    assert num_graphs >= 1
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)
    gc.collect()
    group.leave()


@pytest.mark.parametrize(("mode", "bucket"), [("stuck", 2), ("stuck_in_graph", 2)])
def test_a_stuck_rank_is_named_with_its_bucket_and_the_job_is_ended(mode: str, bucket: int) -> None:
    script = Path(__file__).with_name("failing_card.py")
    status, output, seconds = run_job(mode, script=script, warn_s=WARN_S, abort_s=ABORT_S, timeout_s=200.0)
    assert status != 0
    assert ABORT_S < seconds < 100
    told = (
        rf"rank 0 on \S+ \(pid \d+\): its GPU is waiting [\d.]+ s in gradient bucket {bucket} of 2; "
        r'not arrived: rank 1 on \S+ \(pid \d+\), phase "forward"'
    )
    assert re.search(f"stall: {told}", output), output
    assert "in sleep_in_layer\n" in output
    assert re.search(rf"error: {told}; a collective must end in {ABORT_S:g} s", output), output


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder as a user has it."""
    assert dtrain("convert", "digits", "data", at=tmp_path).status == 0
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


@pytest.mark.parametrize("flags", [[], ["--compress=bf16"], ["--comm=mpi"], ["--plan=off"]], ids=str)
def test_the_command_trains_on_two_ranks(digits: Path, flags: list[str]) -> None:
    arguments = command(["solver.prototxt", "-gpu", "all", *flags], 2)
    surrounding = {**surroundings(), "DTRAIN_SHARE_CARDS": "1"}
    done = subprocess.run(arguments, cwd=digits, env=surrounding, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    by = "MPI in host memory" if "--comm=mpi" in flags else "NCCL"
    assert f"Gradients are summed by {by}" in done.stderr
    for rank in range(2):
        assert re.search(rf"rank {rank} of 2 on \S+, GPU \d+, ", done.stderr), done.stderr
    assert "has not ended" not in done.stderr
    assert (digits / "runs" / "small_iter_20.caffemodel").exists()


def test_more_ranks_than_cards_is_an_error_of_the_command(digits: Path) -> None:
    ranks = cupy_device.count() + 1
    surrounding = {key: value for key, value in surroundings().items() if key != "DTRAIN_SHARE_CARDS"}
    done = subprocess.run(
        command(["solver.prototxt", "-gpu", "all"], ranks),
        cwd=digits,
        env=surrounding,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode != 0
    assert re.search(
        rf"-gpu all: there must be a card for each of the {ranks} ranks on \S+, got {ranks - 1}", done.stderr
    ), done.stderr
