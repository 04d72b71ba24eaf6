"""Sums by NCCL: their place between the streams, in graphs, compressed, and what ends a job.

NCCL and the card are stand-ins (nccl_stand_in.py); tests/gpu/test_nccl.py has the real ones.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.comm import nccl as here
from dtrain.comm.board import Standing
from dtrain.comm.communicator import Communicator
from dtrain.comm.device_watch import MOST_LABELS, Progress, device_stall_text
from dtrain.comm.digest import check_equal
from dtrain.comm.nccl import NcclCommunicator
from dtrain.comm.reducer import Reducer
from dtrain.comm.single import SingleCommunicator
from dtrain.comm.staged import StagedCommunicator
from dtrain.errors import CommError
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Device
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings
from tests.comm.nccl_stand_in import CudaError, Event, Machine, StandInLane, StandInNccl, Stream, casting
from tests.comm.test_communicator import CommunicatorContract
from tests.comm.test_failure import ABORT_S, START_S, run_job
from tests.kernels.cuda.cpu_device import CpuDevice, guarded
from tests.shared import shared_path
from tests.solvers import golden

ORDERS = pytest.mark.parametrize("beside_first", [False, True], ids=["late", "early"])
SLICES = [(0, 100), (100, 110), (110, 500), (500, 501), (501, 1000)]

Make = Callable[..., NcclCommunicator]
Weights = dict[tuple[str, int], Any]


@pytest.fixture
def make(comm: Communicator) -> Iterator[Make]:
    """Communicators on machines of their own, which leave in the end."""
    from dtrain.comm.mpi import MpiCommunicator

    assert isinstance(comm, MpiCommunicator)
    made = []

    def build(machine: Machine, format: str = "") -> NcclCommunicator:
        compression = casting(machine, format) if format else None
        made.append(NcclCommunicator(comm, StandInLane(machine), StandInNccl(machine), compression))
        return made[-1]

    yield build
    for group in made:
        group.lane.machine.finish()
        group.leave()
        assert group._nccl.calls[-1] == "destroy"


def buffer(count: int, value: float = 0.0, dtype: Any = np.float32) -> Any:
    """An array of the device."""
    array = guarded(count, np.dtype(dtype))
    array.fill(value)
    return array


def total(size: int) -> int:
    """Of the ranks' numbers, counted from 1."""
    return size * (size + 1) // 2


@pytest.mark.world_size(2)
class TestHostArrays(CommunicatorContract):
    """On arrays in host memory it is the communicator that it has."""

    @pytest.fixture
    def comm(self, make: Make) -> NcclCommunicator:
        return make(Machine())


@pytest.mark.world_size(2, 4)
@ORDERS
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8])
def test_a_sum_reads_what_was_queued_before_and_is_read_by_what_is_queued_after(
    make: Make, beside_first: bool, dtype: Any
) -> None:
    machine = Machine(beside_first=beside_first)
    group = make(machine)
    array, seen = buffer(7, dtype=dtype), []
    for turn in range(3):
        machine.compute.run(lambda turn=turn: array.fill(group.rank + 1 + turn))
        ticket = group.allreduce(array, "gradient bucket 1 of 1")
        group.wait(ticket)
        group.wait(ticket)
        machine.compute.run(lambda: seen.append(array.copy()))
    assert not seen, "the host waits for nothing"
    machine.finish()
    assert [values.tolist() for values in seen] == [
        [total(group.size) + turn * group.size] * 7 for turn in range(3)
    ]


def sum_without(missing: str, make: Make, beside_first: bool) -> float:
    """What is read of a sum when one stream does not wait for the other's event."""
    machine = Machine(beside_first=beside_first)
    group = make(machine)
    careless = {"fork": group._stream, "join": machine.compute, "": None}[missing]
    honest = Stream.wait_event
    array, seen = buffer(7), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "wait_event", lambda self, e: None if self is careless else honest(self, e))
        machine.compute.run(lambda: array.fill(group.rank + 1))
        group.wait(group.allreduce(array))
        machine.compute.run(lambda: seen.append(float(array[0])))
    machine.finish()
    return seen[0]


@pytest.mark.world_size(2)
@pytest.mark.parametrize("missing", ["fork", "join"])
def test_an_order_that_no_event_enforces_gives_wrong_sums_on_the_stand_in(make: Make, missing: str) -> None:
    assert {sum_without("", make, beside_first) for beside_first in (False, True)} == {3.0}
    assert {sum_without(missing, make, beside_first) for beside_first in (False, True)} != {3.0}


@pytest.mark.world_size(2)
@ORDERS
def test_buckets_are_summed_beside_backward(make: Make, beside_first: bool) -> None:
    machine = Machine(beside_first=beside_first)
    group = make(machine)
    diff, seen = buffer(1000), []
    reducer = Reducer(group, diff, SLICES, bucket_bytes=1600)
    for turn in range(3):
        for i, (start, stop) in enumerate(SLICES):
            machine.compute.run(
                lambda start=start, stop=stop, turn=turn: diff[start:stop].fill(group.rank + turn)
            )
            reducer.ready(i)
            reducer.poll()
        reducer.finish()
        machine.compute.run(lambda: seen.append(diff.copy()))
    machine.finish()
    for turn, values in enumerate(seen):
        np.testing.assert_array_equal(values, group.size * turn + sum(range(group.size)))
    assert group._nccl.calls == ["allReduce of 500"] * 6


@pytest.mark.world_size(2)
@ORDERS
@pytest.mark.parametrize("format", ["", "bf16"])
def test_a_captured_sum_is_replayed_on_new_values(make: Make, beside_first: bool, format: str) -> None:
    machine = Machine(beside_first=beside_first)
    group = make(machine, format)
    diff, seen, turns = buffer(1000), [], iter(range(1, 100))
    reducer = Reducer(group, diff, SLICES, bucket_bytes=1600)

    def iterate() -> None:
        machine.compute.run(lambda: diff.fill(next(turns) * (group.rank + 1)))
        for i in range(len(SLICES)):
            reducer.ready(i)
        reducer.finish()
        machine.compute.run(lambda: seen.append((float(diff.min()), float(diff.max()))))

    iterate()
    machine.compute.begin_capture()
    iterate()
    graph = machine.compute.end_capture()
    for _ in range(3):
        graph.launch()
    iterate()
    machine.finish()
    assert seen == [(turn * total(group.size),) * 2 for turn in range(1, 6)]
    assert group.is_capturable
    assert group._progress.place == 0


@pytest.mark.world_size(2)
def test_the_stand_in_refuses_a_capture_that_cuda_refuses(make: Make) -> None:
    machine = Machine()
    group = make(machine)
    array = buffer(7, 1.0)
    machine.compute.begin_capture()
    with pytest.raises(CudaError, match="makes an event"):
        group.allreduce(array)  # the first sum: not everything is there yet
    machine.capture = None
    machine.finish()
    before = group.allreduce(array)
    machine.compute.begin_capture()
    with pytest.raises(CudaError, match="outside of the capture"):
        group.wait(before)
    machine.capture = None
    machine.compute.begin_capture()
    group._events.append(Event())
    group.allreduce(array)
    with pytest.raises(CudaError, match="a fork was not joined"):
        machine.compute.end_capture()
    machine.finish()


@pytest.mark.world_size(2, 4)
@ORDERS
def test_a_broadcast_lies_between_what_is_queued_before_and_after(make: Make, beside_first: bool) -> None:
    machine = Machine(beside_first=beside_first)
    group = make(machine)
    array, seen = buffer(5), []
    machine.compute.run(lambda: array.fill(group.rank + 10))
    group.broadcast(array, group.size - 1)
    machine.compute.run(lambda: seen.append(array.copy()))
    machine.finish()
    np.testing.assert_array_equal(seen[0], group.size + 9)
    np.testing.assert_array_equal(group.on_host(array), group.size + 9)
    check_equal(group, "weights", [array])
    array[2] = group.rank
    with pytest.raises(CommError, match="weights: the replicas must be equal"):
        check_equal(group, "weights", [array])


@pytest.mark.world_size(2)
@ORDERS
@pytest.mark.parametrize(("format", "tolerance"), [("fp16", 2**-11), ("bf16", 2**-8)])
@pytest.mark.parametrize("staged", [False, True])
def test_compressed_sums_are_right_to_16_bits_and_large_ones_stay_finite(
    comm: Communicator, make: Make, beside_first: bool, format: str, tolerance: float, staged: bool
) -> None:
    machine = Machine(beside_first=beside_first)
    if staged:
        group: Any = StagedCommunicator(comm, StandInLane(machine), casting(machine, format))
    else:
        group = make(machine, format)
    mine = [np.random.default_rng(rank).standard_normal(1000) for rank in range(group.size)]
    mine = [np.append(values, 40000.0).astype(np.float32) for values in mine]
    array, counts = buffer(1001), buffer(3, group.rank + 1, np.int64)
    machine.compute.run(lambda: np.copyto(array, mine[group.rank]))
    tickets = [group.allreduce(array, "gradient bucket 1 of 1"), group.allreduce(counts)]
    for ticket in tickets:
        group.wait(ticket)
    machine.finish()
    limit = tolerance * 2 * np.abs(mine).sum(axis=0)
    assert (np.abs(array - np.sum(mine, axis=0)) <= limit).all()
    assert (array != np.sum(mine, axis=0)).any()
    assert counts.tolist() == [total(group.size)] * 3, "only float32 is compressed"
    check_equal(comm, "compressed sums", [array])


@pytest.mark.world_size(2, 4)
@ORDERS
def test_staged_sums_are_those_of_mpi_in_memory_that_is_kept(comm: Communicator, beside_first: bool) -> None:
    machine = Machine(beside_first=beside_first)
    lane = StandInLane(machine)
    group = StagedCommunicator(comm, lane)
    diff, seen = buffer(1000), []
    reducer = Reducer(group, diff, SLICES, bucket_bytes=1600)
    for turn in range(3):
        machine.compute.run(lambda turn=turn: diff.fill(group.rank + 1 + turn))
        for i in range(len(SLICES)):
            reducer.ready(i)
        reducer.finish()
        machine.compute.run(lambda: seen.append(diff.copy()))
    machine.finish()
    for turn, values in enumerate(seen):
        np.testing.assert_array_equal(values, total(group.size) + turn * group.size)
    assert lane.pinned_bytes == diff.nbytes
    assert not group.is_capturable
    machine.compute.run(lambda: diff.fill(group.rank))
    group.broadcast(diff, 1)
    np.testing.assert_array_equal(group.on_host(diff), 1)


# -- training


def solver_of(name: str, comm: Communicator, batch: int, device: Device) -> Solver:
    """A golden configuration on CUDA kernels."""
    path = shared_path("golden", "solvers", f"{name}.solver.prototxt")
    param, source = read_solver(path)
    param.snapshot = 0
    description, _ = read_net(path.parent / param.net)
    for shape in description.layer[0].input_param.shape:
        shape.dim[0] = batch
    param.ClearField("net")
    param.net_param.CopyFrom(description)
    net = build_train_net(Settings(param, source), CudaBackend(device), comm, seed=1)
    solver = Solver(param, net, (), comm, source=source)
    golden.start_as_caffe(solver, name)
    return solver


def trained(name: str, comm: Communicator, device: Device) -> Weights:
    """Weights after training on the golden batches, each rank on its part."""
    share = 6 // comm.size
    solver = solver_of(name, comm, share, device)
    for _ in range(12):
        golden.feed(solver, slice(share * comm.rank, share * (comm.rank + 1)))
        solver.step(1)
    solver._snapshots.check_replicas("weights and history")
    owned = golden.weights_at(name, 12)
    return {(layer, j): solver.net.layer(layer).blobs[j].data.plain().copy() for layer, j in owned}


@pytest.mark.world_size(2)
@pytest.mark.parametrize("by", ["nccl", "staged"])
@pytest.mark.parametrize("name", ["sgd_step", "sgd_clip_itersize", "sgd_shared", "adam"])
def test_two_ranks_on_cards_have_the_weights_of_caffe(
    comm: Communicator, make: Make, name: str, by: str
) -> None:
    device = CpuDevice()
    machine = Machine(device=device)
    group = StagedCommunicator(comm, StandInLane(machine)) if by == "staged" else make(machine)
    for (layer, j), values in trained(name, group, device).items():
        expected = golden.weights_at(name, 12)[layer, j]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=f"{layer}[{j}]")


SQUARES = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: BATCH dim: 5 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" inner_product_param {
  num_output: 6 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "square" type: "Power" bottom: "ip2" top: "square" power_param { power: 2 shift: 0.5 } }
layer { name: "loss" type: "Reduction" bottom: "square" top: "loss" loss_weight: 1
  reduction_param { operation: MEAN } }
"""


def squares(comm: Communicator, device: Device, *, replayed: bool) -> Any:
    """The weights of a net whose ranks share batches of 8, and how many graphs it was run by."""
    batch = 8 // comm.size
    param = pb.SolverParameter()
    text.parse('base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 9 net_param {}', param)
    text.parse(SQUARES.replace("BATCH", str(batch)), param.net_param)
    backend = CudaBackend(device)
    net = build_train_net(Settings(param), backend, comm, seed=1)
    replayer = net.replayer = backend.replayer() if replayed else None
    solver = Solver(param, net, (), comm)
    data = np.random.default_rng(0).standard_normal((9, 8, 5)).astype(np.float32)
    for values in data:
        mine = values[batch * comm.rank : batch * (comm.rank + 1)]
        net.blob("data").data.plain_overwrite()[...] = mine
        solver.step(1)
    solver._snapshots.check_replicas("weights and history")
    weights = [owned.blob.data.plain().copy() for owned in net.params.owned]
    return weights, replayer.num_graphs if replayer is not None else 0


@pytest.mark.world_size(2, 4)
@pytest.mark.parametrize(
    ("by", "format", "tolerance"), [("nccl", "", 1e-6), ("nccl", "bf16", 2e-2), ("staged", "", 1e-6)]
)
def test_replayed_iterations_of_several_ranks_are_those_of_one(
    comm: Communicator, make: Make, by: str, format: str, tolerance: float
) -> None:
    device = CpuDevice()
    machine = Machine(device=device)
    group = make(machine, format) if by == "nccl" else StagedCommunicator(comm, StandInLane(machine))
    alone, _ = squares(SingleCommunicator(), CpuDevice(), replayed=False)
    together, num_graphs = squares(group, device, replayed=True)
    assert num_graphs >= group.is_capturable
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


@pytest.mark.world_size(2)
@pytest.mark.parametrize(("format", "tolerance"), [("fp16", 1e-3), ("bf16", 8e-3)])
def test_two_ranks_with_compressed_gradients_stay_close_to_caffe(
    make: Make, format: str, tolerance: float
) -> None:
    start, end = golden.weights_at("sgd_step", 0), golden.weights_at("sgd_step", 12)
    device = CpuDevice()
    found = trained("sgd_step", make(Machine(device=device), format), device)
    moved = np.concatenate([(end[key] - start[key]).ravel() for key in end])
    error = np.concatenate([(found[key] - end[key]).ravel() for key in end])
    assert tolerance / 100 < np.linalg.norm(error) / np.linalg.norm(moved) < tolerance


@pytest.mark.world_size(2)
def test_ranks_start_from_the_weights_of_rank_0(make: Make) -> None:
    group = make(Machine(device=CpuDevice()))
    solver = solver_of("sgd_step", group, 3, CpuDevice())
    weights = solver.net.params.owned[0].blob.data
    weights.plain_mutable()[...] += group.rank
    with pytest.raises(CommError, match="here: the replicas must be equal"):
        solver._snapshots.check_replicas("here")
    solver._snapshots.share_weights()
    solver._snapshots.check_replicas("here")


# -- starts, and ends


@pytest.mark.world_size(2)
def test_a_start_that_nccl_refuses_is_told_with_its_version(comm: Communicator) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    machine = Machine()
    nccl = StandInNccl(machine, refuses="NCCL_ERROR_INVALID_USAGE: invalid usage")
    assert isinstance(comm, MpiCommunicator)
    with pytest.raises(CommError, match=r"NCCL 2\.32\.3: all 2 ranks must connect, got .*INVALID_USAGE"):
        NcclCommunicator(comm, StandInLane(machine), nccl)


@pytest.mark.parametrize("absent", ["module", "library"])
def test_a_missing_nccl_is_told_with_its_wheels_and_the_way_without(
    monkeypatch: pytest.MonkeyPatch, absent: str
) -> None:
    found = None if absent == "module" else SimpleNamespace(available=False)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", found)
    with pytest.raises(CommError, match=r"nvidia-nccl-cu13 \(nvidia-nccl-cu12 .*--comm mpi"):
        here.load()


@pytest.mark.parametrize(
    ("version", "variable", "value"),
    [(22907, "NCCL_HOSTID", "dtrain-rank-3"), (23000, "NCCL_MULTI_RANK_GPU_ENABLE", "1")],
)
def test_sharing_a_card_is_asked_for_as_the_version_wants_it(
    monkeypatch: pytest.MonkeyPatch, version: int, variable: str, value: str
) -> None:
    for name in ("NCCL_HOSTID", "NCCL_MULTI_RANK_GPU_ENABLE"):
        monkeypatch.setenv(name, "")
    here.share_cards(SimpleNamespace(get_version=lambda: version), 3)
    asked = {n: os.environ[n] for n in ("NCCL_HOSTID", "NCCL_MULTI_RANK_GPU_ENABLE") if os.environ[n]}
    assert asked == {variable: value}


def standing(rank: int, at: int, seconds: float = 0.0) -> Standing:
    label = f"gradient bucket {at} of 3" if at else ""
    return Standing(rank, 9, 0, 0.0, 100 + rank, False, "backward", "barrier", "node", at, seconds, label)


def test_the_ranks_whose_gpu_is_elsewhere_hold_up_a_collective() -> None:
    table = [standing(0, 2, 9.0), standing(1, 0), standing(2, 1, 3.0), standing(3, 2, 9.0)]
    assert device_stall_text(table[0], table) == (
        "rank 0 on node (pid 100): its GPU is waiting 9.0 s in gradient bucket 2 of 3; not arrived: "
        'rank 1 on node (pid 101), phase "backward"; '
        'rank 2 on node (pid 102), phase "backward", its GPU in gradient bucket 1 of 3'
    )
    assert "the network stands still" in device_stall_text(table[0], [table[0], table[3]])


def test_labels_beyond_the_table_share_the_last_number() -> None:
    machine = Machine(device=CpuDevice())
    progress = Progress(StandInLane(machine))
    for i in range(MOST_LABELS + 5):
        progress.enter(f"sum {i}", machine.compute)
    assert progress.place == MOST_LABELS
    assert progress.labels[progress.place] == "a collective"
    progress.enter("sum 6", machine.compute)
    assert progress.labels[progress.place] == "sum 6"
    progress.leave(machine.compute)
    assert progress.place == 0


SCRIPT = Path(__file__).with_name("failing_card.py")
GPU_STALL = (
    r"rank 0 on \S+ \(pid \d+\): its GPU is waiting [\d.]+ s in gradient bucket BUCKET of 2; "
    r'not arrived: rank 1 on \S+ \(pid \d+\), phase "forward"'
)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(("mode", "bucket"), [("stuck", "2"), ("stuck_in_graph", "1")])
def test_a_stuck_collective_names_rank_and_bucket_and_ends_the_job(mode: str, bucket: str, size: int) -> None:
    status, output, seconds = run_job(mode, size, script=SCRIPT)
    assert status != 0
    assert ABORT_S < seconds < START_S + ABORT_S
    told = GPU_STALL.replace("BUCKET", bucket)
    assert re.search(f"stall: {told}\n", output), output
    assert "in sleep_in_layer\n" in output
    assert re.search(rf"error: {told}; a collective must end in {ABORT_S:g} s", output), output
    assert not re.search(r"not arrived: rank [02]", output)


@pytest.mark.parametrize("mode", ["fault", "unnamed_fault"])
def test_an_error_that_nccl_reports_later_ends_the_job_and_is_named(mode: str) -> None:
    status, output, seconds = run_job(mode, 2, script=SCRIPT)
    assert status != 0
    assert seconds < START_S
    told = r"NCCL_ERROR_SYSTEM_ERROR" if mode == "fault" else r"KeyError\(6\)"
    assert re.search(
        rf"error: rank 1 on \S+ \(pid \d+\): NCCL failed in gradient bucket 2 of 2: .*{told}", output
    ), output


def test_a_job_whose_cards_do_well_says_nothing() -> None:
    status, output, _ = run_job("none", 2, script=SCRIPT)
    assert (status, output) == (0, "")
