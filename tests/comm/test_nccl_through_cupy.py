"""Sums beside CupyDevice's own streams, through CuPy's interface: streams, events and captures simulated.

What is queued runs late, or what is beside the first stream as early as it may (numpy_streams.py); NCCL's
sums are MPI's. tests/gpu/test_nccl.py does the same on a card.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.cli.group import compression_of
from dtrain.comm.communicator import Communicator
from dtrain.comm.cupy_lane import CupyLane
from dtrain.comm.digest import check_equal
from dtrain.comm.nccl import NcclCommunicator
from dtrain.comm.single import SingleCommunicator
from dtrain.comm.staged import StagedCommunicator
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from tests.comm.nccl_stand_in import StandInNccl
from tests.comm.test_nccl import squares
from tests.kernels.cuda.numpy_cupy import Cupy
from tests.kernels.cuda.numpy_streams import Stream

DOWN, UP = 2, 1  # cudaMemcpyKind


def card_of(monkeypatch: pytest.MonkeyPatch, *, copies_first: bool) -> tuple[CupyDevice, Any]:
    """A device, and the machine as NCCL's stand-in queues on it."""
    cupy = Cupy(copies_first=copies_first).install(monkeypatch)
    machine = cupy.machine

    def copy(target: int, source: int, size: int, kind: int, stream: int) -> None:
        machine.queue(machine.streams[stream], lambda: ctypes.memmove(target, source, size))

    def stream(*, non_blocking: bool = False, priority: int | None = None) -> Stream:
        return Stream(machine, non_blocking=non_blocking)

    def at(number: int) -> Any:
        def run(work: Callable[[], None]) -> None:
            machine.queue(machine.streams[number], work)

        return SimpleNamespace(run=run)

    runtime = cupy.cuda.runtime
    runtime.memcpyAsync, runtime.memcpyDeviceToHost, runtime.memcpyHostToDevice = copy, DOWN, UP
    runtime.hostRegister = lambda pointer, size, flags: None
    cupy.cuda.Stream = stream
    cupy.cuda.get_current_stream = machine.current

    def check_thread() -> None:
        assert machine.here.card == 0, "each thread has a card of its own"

    return CupyDevice(0), SimpleNamespace(at=at, check_thread=check_thread)


@pytest.mark.world_size(2)
@pytest.mark.parametrize("copies_first", [False, True], ids=["late", "early"])
@pytest.mark.parametrize(
    ("by", "format", "tolerance"), [("nccl", "", 1e-6), ("nccl", "bf16", 2e-2), ("staged", "fp16", 2e-3)]
)
def test_replayed_iterations_of_two_ranks_are_those_of_one(
    comm: Communicator,
    monkeypatch: pytest.MonkeyPatch,
    by: str,
    format: str,
    tolerance: float,
    copies_first: bool,
) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    assert isinstance(comm, MpiCommunicator)
    device, machine = card_of(monkeypatch, copies_first=copies_first)
    compression = compression_of(CudaBackend(device), format or "none")
    lane = CupyLane()
    alone, _ = squares(SingleCommunicator(), device, replayed=False)
    nccl = NcclCommunicator(comm, lane, StandInNccl(machine), compression) if by == "nccl" else None
    group: Any = nccl or StagedCommunicator(comm, lane, compression)
    together, num_graphs = squares(group, device, replayed=True)
    assert num_graphs >= group.is_capturable
    for mine, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)
    if nccl is not None:
        assert nccl._progress.place == 0
        gc.collect()
        nccl.leave()


@pytest.mark.world_size(2)
@pytest.mark.parametrize("copies_first", [False, True], ids=["late", "early"])
@pytest.mark.parametrize("by", ["nccl", "staged"])
def test_a_broadcast_and_a_digest_reach_a_cards_array(
    comm: Communicator, monkeypatch: pytest.MonkeyPatch, by: str, copies_first: bool
) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    assert isinstance(comm, MpiCommunicator)
    device, machine = card_of(monkeypatch, copies_first=copies_first)
    nccl = NcclCommunicator(comm, CupyLane(), StandInNccl(machine)) if by == "nccl" else None
    group: Any = nccl or StagedCommunicator(comm, CupyLane())
    array = device.empty(1001, np.float32)
    device.upload(np.full(1001, comm.rank + 5, np.float32), array)
    group.broadcast(array, 1)
    check_equal(group, "array", [array])
    np.testing.assert_array_equal(group.on_host(array), 6)
    if nccl is not None:
        nccl.leave()
