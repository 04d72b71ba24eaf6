"""One contract for every communicator: a group of one, and MPI at 1, 2 and 4 ranks."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dtrain.comm.communicator import Communicator
from dtrain.comm.digest import check_equal
from dtrain.comm.launcher import describe
from dtrain.comm.single import SingleCommunicator
from dtrain.errors import CommError

DTYPES = [np.float32, np.float64, np.int64, np.uint8]


def rank_values(rank: int, count: int, dtype: type) -> np.ndarray:
    values = np.random.default_rng(rank).integers(0, 40, count)
    return (values + (0.1 if np.dtype(dtype).kind == "f" else 0)).astype(dtype)


def sum_in_rank_order(size: int, count: int, dtype: type) -> np.ndarray:
    total = rank_values(0, count, dtype)
    for rank in range(1, size):
        total += rank_values(rank, count, dtype)
    return total


class CommunicatorContract:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("count", [0, 1, 7, 1000, 100_003])
    def test_allreduce_of_allocated_memory_gives_every_rank_the_sum_in_rank_order(self, comm, dtype, count):
        array = comm.allocate(count, dtype)
        assert array.dtype == dtype
        assert not array.any()
        array[:] = rank_values(comm.rank, count, dtype)
        comm.wait(comm.allreduce(array))
        np.testing.assert_array_equal(array, sum_in_rank_order(comm.size, count, dtype))

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_allreduce_of_any_memory_gives_every_rank_the_sum(self, comm, dtype):
        array = rank_values(comm.rank, 1001, dtype).reshape(7, 143)
        comm.wait(comm.allreduce(array))
        np.testing.assert_allclose(array.ravel(), sum_in_rank_order(comm.size, 1001, dtype), rtol=1e-6)

    def test_every_rank_gets_the_same_bits(self, comm):
        for array in (comm.allocate(50_000), np.zeros(50_000, np.float32)):
            array[:] = np.random.default_rng(comm.rank).standard_normal(50_000)
            comm.wait(comm.allreduce(array))
            check_equal(comm, "sum", [array])

    def test_allocated_memory_is_aligned_to_64_bytes(self, comm):
        for count in (1, 3, 1000):
            assert comm.allocate(count, np.float64).ctypes.data % 64 == 0

    def test_many_sums_under_way_are_completed_in_any_order_of_waiting(self, comm):
        flat = comm.allocate(8000)
        other = np.full(100, comm.rank + 1.0)
        flat[:] = comm.rank + 1
        parts = [flat[i : i + 1000] for i in range(0, 8000, 1000)]
        tickets = [comm.allreduce(part) for part in parts[:4]]
        tickets.append(comm.allreduce(other))
        comm.poll()
        tickets += [comm.allreduce(part) for part in parts[4:]]
        for ticket in reversed(tickets):
            comm.wait(ticket)
        expected = comm.size * (comm.size + 1) / 2
        assert np.all(flat == expected)
        assert np.all(other == expected)

    def test_a_sum_completes_while_another_rank_is_in_a_later_collective(self, comm):
        flat = comm.allocate(1000)
        flat[:] = 1
        ticket = comm.allreduce(flat)
        if comm.rank == 0:
            comm.wait(ticket)
        comm.barrier()
        comm.wait(ticket)
        assert np.all(flat == comm.size)

    def test_waiting_twice_is_waiting_once(self, comm):
        array = np.ones(3)
        ticket = comm.allreduce(array)
        comm.wait(ticket)
        comm.wait(ticket)
        assert np.all(array == comm.size)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_broadcast_gives_every_rank_the_array_of_the_root(self, comm, dtype):
        for root in range(comm.size):
            array = np.full((3, 4), comm.rank + 5, dtype)
            comm.broadcast(array, root)
            np.testing.assert_array_equal(array, np.full((3, 4), root + 5))

    def test_allgather_object_keeps_the_order_of_ranks(self, comm):
        gathered = comm.allgather_object({"rank": comm.rank, "text": "x" * 100 * comm.rank})
        assert gathered == [{"rank": rank, "text": "x" * 100 * rank} for rank in range(comm.size)]

    def test_ranks_of_the_machine_are_numbered(self, comm):
        assert sorted(comm.allgather_object(comm.local_rank)) == list(range(comm.size))
        assert comm.local_size == comm.size
        assert comm.threads >= 1

    def test_describe_has_a_line_for_each_rank(self, comm):
        lines = describe(comm)
        assert [line.split(" on ")[0] for line in lines] == [
            f"rank {r} of {comm.size}" for r in range(comm.size)
        ]

    def test_check_equal_accepts_equal_replicas(self, comm):
        check_equal(comm, "weights", [np.arange(5), np.ones((2, 3), np.float32)])


class TestSingle(CommunicatorContract):
    pass


@pytest.mark.world_size(1, 2, 4)
class TestMpi(CommunicatorContract):
    def test_the_job_has_as_many_ranks_as_asked_for(self, comm, world_size):
        assert comm.size == world_size
        assert not isinstance(comm, SingleCommunicator)

    def test_sums_come_out_right_hundreds_of_times(self, comm):
        flat = comm.allocate(5000)
        for turn in range(300):
            flat[:] = comm.rank + turn
            first, second = comm.allreduce(flat[:2000]), comm.allreduce(flat[2000:])
            comm.wait(first)
            comm.wait(second)
            assert np.all(flat == comm.size * turn + sum(range(comm.size)))


@pytest.mark.world_size(2, 4)
def test_different_weights_are_told_with_both_ranks(comm: Communicator) -> None:
    weights = np.zeros(4, np.float32)
    weights[3] = comm.rank == comm.size - 1
    with pytest.raises(CommError, match=rf"weights: .* at rank 0 and .* at rank {comm.size - 1} \(1 of"):
        check_equal(comm, "weights", [weights])


@pytest.mark.world_size(2, 4)
def test_a_shape_that_differs_is_told_with_both_ranks(comm: Communicator) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    fresh = MpiCommunicator()
    with pytest.raises(
        CommError, match=r"float64\[3\] own memory at rank 0 and allreduce float64\[4\] own memory at rank 1"
    ):
        fresh.allreduce(np.zeros(3 + (fresh.rank > 0)))
    array = np.zeros(2, np.int64)
    collective = fresh.barrier if fresh.rank == 0 else partial(fresh.broadcast, array)
    with pytest.raises(CommError, match=r"barrier at rank 0 and broadcast int64\[2\] from rank 0 at rank 1"):
        collective()
    fresh.close()


@pytest.mark.world_size(2)
def test_an_array_outside_of_host_memory_is_refused(comm: Communicator) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    fresh = MpiCommunicator()
    on_a_card: Any = SimpleNamespace(nbytes=4, dtype=np.float32)
    for collective in (fresh.allreduce, fresh.broadcast):
        with pytest.raises(CommError, match=r"MPI must be given host memory, got a types\.SimpleNamespace"):
            collective(on_a_card)
    fresh.close()


@pytest.mark.world_size(4)
@pytest.mark.parametrize("machine_size", [1, 2, 3])
def test_sums_over_several_machines_are_right_and_the_same_everywhere(
    comm: Communicator, machine_size
) -> None:
    from dtrain.comm.mpi import MpiCommunicator

    machines = MpiCommunicator(machine_size=machine_size)
    assert machines.local_rank == machines.rank % machine_size
    assert (machines.sliced is not None) == (machine_size == 2)
    flat = machines.allocate(100_003)
    for turn in range(20):
        flat[:] = rank_values(machines.rank, 100_003, np.float32) + np.float32(turn)
        tickets = [machines.allreduce(flat[:50_001]), machines.allreduce(flat[50_001:])]
        machines.poll()
        for ticket in tickets:
            machines.wait(ticket)
        expected = sum_in_rank_order(4, 100_003, np.float64) + 4 * turn
        np.testing.assert_allclose(flat, expected, rtol=1e-6)
        check_equal(machines, "sum", [flat])
    machines.close()
