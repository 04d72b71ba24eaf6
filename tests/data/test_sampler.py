"""The order in which records are read, at any number of ranks and after any resume."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.data.sampler import (
    WINDOW_BLOCKS,
    TestSchedule,
    TrainSchedule,
    permuted,
    permuted_in_blocks,
    records_of,
    skip_of,
)

seeds = st.integers(-(2**40), 2**40)
shuffles = st.one_of(st.none(), seeds)
blocks = st.integers(0, 40)


def global_order(num_records, batch_size, size, steps, **options):
    """The records that the job reads, in the order in which it consumes them."""
    order = []
    ranks = [
        TrainSchedule(num_records=num_records, batch_size=batch_size, rank=rank, size=size, **options)
        for rank in range(size)
    ]
    for n in range(steps):
        draws = [rank(n) for rank in ranks]
        samples = np.stack([draw.samples for draw in draws], axis=1).ravel()
        assert (np.diff(samples) == 1).all()
        order += np.stack([draw.records for draw in draws], axis=1).ravel().tolist()
    return order


@settings(deadline=None)
@given(num=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 10**6))
def test_a_shuffled_epoch_holds_every_record_once(num, seed, epoch):
    order = permuted(np.arange(num), num, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(num))


@settings(deadline=None)
@given(num=st.integers(1, 3000), seed=seeds, epoch=st.integers(0, 10**6), block=st.integers(1, 400))
def test_an_epoch_shuffled_in_blocks_holds_every_record_once(num, seed, epoch, block):
    order = permuted_in_blocks(np.arange(num), num, seed, epoch, block)
    assert np.array_equal(np.sort(order), np.arange(num))


def test_a_shuffle_in_blocks_reads_few_places_at_a_time_and_spreads_them_over_the_epochs():
    block, num = 20, 20_013
    orders = [permuted_in_blocks(np.arange(num), num, 1, epoch, block) for epoch in (0, 1)]
    for order in orders:
        window = order[: WINDOW_BLOCKS * block]
        assert len(np.unique(window // block)) <= WINDOW_BLOCKS + 1
        assert (np.diff(window) == 1).mean() < 0.02
        assert abs(np.corrcoef(np.arange(num), order)[0, 1]) < 0.1
    assert (orders[0] == orders[1]).mean() < 0.02
    assert set(orders[0][:100]) != set(orders[1][:100])


@settings(deadline=None)
@given(
    num=st.integers(1, 500), seed=shuffles, skip=st.integers(0, 1000), start=st.integers(0, 4), block=blocks
)
def test_every_epoch_of_the_job_holds_every_record_once(num, seed, skip, start, block):
    samples = np.arange(num) + start * num - skip % num + (num if skip % num else 0)
    records = records_of(samples, num, seed, skip, block)
    assert np.array_equal(np.sort(records), np.arange(num))


@settings(deadline=None)
@given(
    num=st.integers(1, 300),
    batch=st.integers(1, 7),
    size=st.integers(1, 6),
    steps=st.integers(1, 5),
    seed=shuffles,
    skip=st.integers(0, 50),
    block=blocks,
)
def test_the_global_order_is_the_same_at_any_number_of_ranks(num, batch, size, steps, seed, skip, block):
    options = {"shuffle_seed": seed, "skip": skip, "shuffle_block": block}
    alone = global_order(num, batch * size, 1, steps, **options)
    assert global_order(num, batch, size, steps, **options) == alone


@settings(deadline=None)
@given(
    num=st.integers(1, 200),
    before=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 6)),
    after=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 6)),
    seed=shuffles,
    block=blocks,
)
def test_a_resume_at_another_size_reads_exactly_the_remaining_samples(num, before, after, seed, block):
    options = {"shuffle_seed": seed, "shuffle_block": block}
    first = global_order(num, *before, **options)
    second = global_order(num, *after, consumed=len(first), **options)
    assert first + second == global_order(num, 1, 1, len(first) + len(second), **options)


@settings(deadline=None)
@given(
    num=st.integers(1, 300),
    rank=st.integers(0, 2),
    consumed=st.integers(0, 2**40),
    step=st.integers(0, 9),
    seed=shuffles,
    skip=st.integers(0, 50),
)
def test_a_schedule_deals_the_records_that_the_definition_gives(num, rank, consumed, step, seed, skip):
    schedule = TrainSchedule(
        num_records=num, batch_size=37, rank=rank, size=3, consumed=consumed, shuffle_seed=seed, skip=skip
    )
    records, samples = schedule(step)
    np.testing.assert_array_equal(samples, consumed + 37 * 3 * step + rank + 3 * np.arange(37))
    np.testing.assert_array_equal(records, records_of(samples, num, seed, skip))


def test_a_shuffle_is_the_one_that_earlier_versions_made():
    # A resumed run goes on in the order in which it began.
    assert permuted(np.arange(12), 12, 5, 3).tolist() == [6, 2, 11, 10, 9, 8, 1, 3, 4, 5, 0, 7]
    assert permuted(np.arange(12), 12, -1, 0).tolist() == [1, 10, 7, 11, 5, 2, 3, 6, 4, 8, 0, 9]


def test_without_shuffle_the_order_is_that_of_the_source():
    assert global_order(5, 2, 2, 3) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_epochs_and_seeds_shuffle_differently():
    orders = [permuted(np.arange(1000), 1000, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    for a in range(4):
        for b in range(a):
            assert (orders[a] == orders[b]).mean() < 0.02


def test_neighbours_in_the_source_are_spread_over_the_epoch():
    order = permuted(np.arange(100_000), 100_000, 3, 0)
    assert abs(np.corrcoef(np.arange(100_000), order)[0, 1]) < 0.02
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02


def test_small_sources_reach_every_order():
    # Four records have 24 orders; 4800 epochs give each about 200 times.
    orders, counts = np.unique(
        [permuted(np.arange(4), 4, 7, epoch) for epoch in range(4800)], axis=0, return_counts=True
    )
    assert len(orders) == 24
    assert counts.min() > 100


def test_a_billion_records_are_shuffled_without_a_table():
    num = 10**9
    positions = np.random.default_rng(0).integers(0, num, 4096)
    records = permuted(positions, num, 1, 2)
    assert records.min() >= 0
    assert records.max() < num
    assert len(np.unique(records)) == len(np.unique(positions))


@settings(deadline=None)
@given(limit=st.integers(1, 10**6), seed=seeds)
def test_rand_skip_is_below_its_limit_and_repeats(limit, seed):
    assert 0 <= skip_of(limit, seed) < limit
    assert skip_of(limit, seed) == skip_of(limit, seed)


def test_rand_skip_depends_on_the_seed():
    assert len({skip_of(10**6, seed) for seed in range(20)}) == 20
    assert skip_of(0, 1) == 0


@settings(deadline=None)
@given(
    num=st.integers(1, 60),
    batch=st.integers(1, 8),
    test_iter=st.integers(1, 9),
    size=st.integers(1, 5),
    passes=st.integers(1, 3),
)
def test_test_passes_read_the_same_batches_at_any_number_of_ranks(num, batch, test_iter, size, passes):
    one = TestSchedule(num_records=num, batch_size=batch, test_iter=test_iter)
    ranks = [
        TestSchedule(num_records=num, batch_size=batch, test_iter=test_iter, rank=r, size=size)
        for r in range(size)
    ]
    assert sum(rank.batches for rank in ranks) == test_iter
    for number in range(passes):
        alone = [one(number * test_iter + b) for b in range(test_iter)]
        for r, rank in enumerate(ranks):
            for turn in range(rank.batches):
                draw = rank(number * rank.batches + turn)
                assert np.array_equal(draw.records, alone[r + turn * size].records)
                assert np.array_equal(draw.samples, alone[r + turn * size].samples)


def test_test_batches_follow_each_other_and_start_again_after_the_end():
    schedule = TestSchedule(num_records=5, batch_size=3, test_iter=2)
    assert [schedule(n).records.tolist() for n in range(3)] == [[0, 1, 2], [3, 4, 0], [1, 2, 3]]
