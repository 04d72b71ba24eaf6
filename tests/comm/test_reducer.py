"""Gradient buckets over one flat buffer."""

import itertools

import numpy as np
import pytest

from dtrain.comm.communicator import Communicator
from dtrain.comm.reducer import Bucket, Reducer, buckets_of
from dtrain.comm.single import SingleCommunicator

SLICES = [(0, 100), (100, 110), (110, 500), (500, 501), (501, 1000)]


def test_buckets_are_filled_in_order_and_cover_the_buffer() -> None:
    assert buckets_of(SLICES, itemsize=4, bucket_bytes=1600) == [Bucket(0, 500, 3), Bucket(500, 1000, 2)]
    assert buckets_of(SLICES, itemsize=4, bucket_bytes=1) == [Bucket(a, b, 1) for a, b in SLICES]
    assert buckets_of(SLICES, itemsize=4, bucket_bytes=1 << 30) == [Bucket(0, 1000, 5)]
    assert buckets_of([], itemsize=4, bucket_bytes=1) == []


def test_a_gap_between_parameters_is_refused() -> None:
    with pytest.raises(AssertionError, match="parameter 1 starts at 11"):
        buckets_of([(0, 10), (11, 20)], itemsize=4, bucket_bytes=1)


def test_a_group_of_one_leaves_the_gradients_alone() -> None:
    comm = SingleCommunicator()
    diff = np.arange(1000, dtype=np.float32)
    reducer = Reducer(comm, diff, SLICES)
    for i in range(len(SLICES)):
        reducer.ready(i)
    reducer.poll()
    reducer.finish()
    np.testing.assert_array_equal(diff, np.arange(1000))
    assert reducer.reduced_bytes_total == 0


@pytest.mark.world_size(2, 4)
@pytest.mark.parametrize("bucket_bytes", [1, 1600, 1 << 30])
@pytest.mark.parametrize("shared", [True, False])
def test_the_buffer_holds_the_sum_whatever_the_order_of_readiness(
    comm: Communicator, bucket_bytes: int, shared: bool
) -> None:
    diff = comm.allocate(1000) if shared else np.zeros(1000, np.float32)
    reducer = Reducer(comm, diff, SLICES, bucket_bytes)
    orders = list(itertools.permutations(range(len(SLICES))))
    for turn in range(0, 120, 7):
        order = orders[(turn + 31 * comm.rank) % 120]  # another order on each rank
        for i in order:
            diff[slice(*SLICES[i])] = np.arange(*SLICES[i]) + comm.rank + turn
            reducer.ready(i)
            reducer.poll()
        reducer.finish()
        np.testing.assert_array_equal(diff, comm.size * (np.arange(1000.0) + turn) + sum(range(comm.size)))
    assert reducer.reduced_bytes_total == 18 * diff.nbytes
    assert 0 < reducer.exposed_s <= reducer.exposed_s_total


@pytest.mark.world_size(2)
def test_an_unready_or_twice_ready_parameter_is_refused(comm: Communicator) -> None:
    reducer = Reducer(comm, comm.allocate(1000), SLICES, bucket_bytes=1 << 30)
    reducer.ready(0)
    with pytest.raises(AssertionError, match="never ready"):
        reducer.finish()
    for i in (1, 2, 3, 4):
        reducer.ready(i)
    with pytest.raises(AssertionError, match="parameter 2 was ready twice"):
        reducer.ready(2)
