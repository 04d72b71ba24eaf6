"""Sums between cards, on stand-ins: both ways give the sum, and a wrong one is no speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import numpy as np
import pytest

from benchmarks.gpu_allreduce import REPEATS, bus_bytes_per_s, seconds_of, slices_of
from dtrain.comm.communicator import Communicator
from dtrain.comm.mpi import MpiCommunicator
from dtrain.comm.nccl import NcclCommunicator
from tests.comm.nccl_stand_in import Machine, StandInLane, StandInNccl
from tests.kernels.cuda.cpu_device import guarded

COUNT = 300_000  # more than one parameter


@final
class PretendedCard:
    """Works on a machine of stand-ins; `wrong` is what its sums are off by."""

    def __init__(self, machine: Machine, wrong: float = 0.0) -> None:
        self._machine = machine
        self._wrong = wrong

    def empty(self, count: int) -> Any:
        return guarded(count, np.dtype(np.float32))

    def fill(self, buffer: Any, value: float) -> None:
        self._machine.compute.run(lambda: buffer.fill(value))

    def holds(self, buffer: Any, value: float) -> bool:
        self._machine.finish()
        return bool((buffer + self._wrong == value).all())

    def seconds(self, work: Callable[[], None]) -> float:
        work()
        self._machine.finish()
        return 0.25 * REPEATS


def sides(comm: Communicator) -> tuple[NcclCommunicator, Machine, StandInNccl, Any]:
    assert isinstance(comm, MpiCommunicator)
    machine = Machine()
    nccl = StandInNccl(machine)
    group = NcclCommunicator(comm, StandInLane(machine), nccl)
    return group, machine, nccl, nccl.NcclCommunicator(comm.size, nccl.get_unique_id(), comm.rank)


@pytest.mark.world_size(2)
def test_both_ways_give_every_rank_the_sum(comm: Communicator) -> None:
    group, machine, nccl, raw = sides(comm)
    assert seconds_of(group, raw, nccl, PretendedCard(machine), COUNT, rounds=1) == (0.25, 0.25)
    of_a_round = 1 + REPEATS
    assert nccl.calls.count(f"allReduce of {COUNT}") == 2 * 2 * of_a_round  # one bucket holds it all
    group.leave()


@pytest.mark.world_size(2)
def test_a_wrong_sum_is_no_speed(comm: Communicator) -> None:
    group, machine, nccl, raw = sides(comm)
    with pytest.raises(SystemExit, match=r"NCCL: the sum of 300000 values must be 3\.0"):
        seconds_of(group, raw, nccl, PretendedCard(machine, wrong=1.0), COUNT, rounds=1)
    group.leave()


@pytest.mark.parametrize(("ranks", "expected"), [(2, 1e9), (4, 1.5e9), (8, 1.75e9)])
def test_bus_bandwidth_is_twice_n_less_one_over_n(ranks: int, expected: float) -> None:
    assert bus_bytes_per_s(500_000_000, 0.5, ranks) == pytest.approx(expected)


def test_slices_follow_each_other_to_the_end() -> None:
    assert slices_of(10, 4) == [(0, 4), (4, 8), (8, 10)]
