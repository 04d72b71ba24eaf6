"""Which records a rank reads, as pure functions of how many samples the whole job has consumed.

A sample number counts the samples that all ranks together have consumed since iteration 0. The samples of a
step are dealt like cards: sample c + k * size + rank is the rank's k-th. So the job sees one order, whatever
its size, and a job that resumes after c samples, at any size, goes on with sample c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import compiled, compiled_brief
from dtrain.data.hashing import Words, below, keyed, mix_one

Numbers = npt.NDArray[np.int64]

_ROUNDS = 8  # a Feistel network is a pseudorandom permutation from 4 rounds on; more for short halves
WINDOW_BLOCKS = 16  # blocks of a block-wise shuffle whose records are mixed with each other


class Draw(NamedTuple):
    """What one batch on one rank consists of."""

    records: Numbers
    """Indices into the reader, in the order of the batch."""
    samples: Numbers
    """The global number of each sample: what its random crop and mirror depend on."""


def local_samples(consumed: int, batch_size: int, rank: int, size: int) -> Numbers:
    """The sample numbers of the rank's batch when the job has consumed so many."""
    return consumed + rank + size * np.arange(batch_size, dtype=np.int64)


def epoch_of(samples: Numbers, num_records: int) -> tuple[Numbers, Numbers]:
    """For each sample, how many times the source was read through before it, and its place in that pass."""
    epochs = samples // num_records
    return epochs, samples - epochs * num_records


def skip_of(rand_skip: int, seed: int) -> int:
    """Caffe's rand_skip: how many records to pass over at the very start, in [0, rand_skip), on all ranks."""
    if rand_skip == 0:
        return 0
    return int(below(keyed(seed, 0x5C1B), np.array([rand_skip], np.int64))[0])


def permuted(positions: Numbers, num_records: int, seed: int, epoch: int) -> Numbers:
    """Each position's record in the shuffled order of an epoch; computed for those asked for, never stored.

    A Feistel network over the least power of two that holds num_records permutes; what lands beyond the end
    is sent through again until it lands inside, which happens in less than two passes on average.
    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, 2002 (cycle walking).
    """
    records = np.empty(len(positions), np.int64)
    _permute(positions, num_records, keyed(seed), epoch, records)
    return records


@compiled
def _permute(positions: Numbers, num_records: int, seed_word: Words, epoch: int, records: Numbers) -> None:
    keys = np.empty(_ROUNDS, np.uint64)
    _set_keys(seed_word, epoch, keys)
    for n in range(len(positions)):
        records[n] = _permuted_one(positions[n], num_records, keys)


@compiled
def _set_keys(seed_word: Words, epoch: int, keys: Words) -> None:
    """The rounds' keys: what `hashing.mix` makes of `keyed(seed, epoch)` plus the number of the round."""
    word = mix_one(seed_word[0] ^ np.uint64(epoch))
    for number in range(_ROUNDS):
        keys[number] = mix_one(word + np.uint64(number))


@compiled
def _permuted_one(position: int, num_records: int, keys: Words) -> int:
    """A round trades the two parts' places, so where they differ in length they differ by one bit."""
    limit, one, bits = np.uint64(num_records), np.uint64(1), 2
    while (num_records - 1) >> bits:
        bits += 1
    value: Any = np.uint64(position)
    while True:
        left_bits, right_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)
        left, right = value >> right_bits, value & ((one << right_bits) - one)
        for key in keys:
            left, right = right, left ^ (mix_one(right ^ key) & ((one << left_bits) - one))
            left_bits, right_bits = right_bits, left_bits
        value = (left << right_bits) | right
        if value < limit:
            return int(value)


@compiled_brief
def _deal(
    first: int, step: int, skip: int, num_records: int, seed_word: Words, samples: Numbers, records: Numbers
) -> None:
    """samples <- first, first + step, ...; records <- `records_of` them, in order if seed_word is empty."""
    keys = np.empty(_ROUNDS, np.uint64)
    last = -1
    for n in range(len(samples)):
        samples[n] = first + n * step
        epoch, position = divmod(samples[n] + skip, num_records)
        if seed_word.size > 0:
            if epoch != last:
                _set_keys(seed_word, epoch, keys)
                last = epoch
            position = _permuted_one(position, num_records, keys)
        records[n] = position


def permuted_in_blocks(positions: Numbers, num_records: int, seed: int, epoch: int, block: int) -> Numbers:
    """`permuted` for slow disks: an order in which short stretches of an epoch read few places of the source.

    The source is cut into blocks of `block` records and the blocks are put in a random order; then the
    records of every WINDOW_BLOCKS blocks that follow each other in it are mixed. The records that fill no
    whole block at the end of the source are a block too, somewhere among the others.
    """
    window = block * WINDOW_BLOCKS
    windows = positions // window
    mixed = np.empty_like(positions)
    for number in np.unique(windows).tolist():
        inside, start = windows == number, number * window
        length = min(window, num_records - start)
        own_seed = int(keyed(seed, epoch, number)[0])
        mixed[inside] = start + permuted(positions[inside] - start, length, own_seed, epoch)
    num_blocks, rest = divmod(num_records, block)
    rest_start = int(below(keyed(seed, epoch, -1), np.array([num_blocks + 1]))[0]) * block
    if rest == 0:
        rest_start = num_records
    in_rest = (mixed >= rest_start) & (mixed < rest_start + rest)
    blocks, places = np.divmod(np.where(mixed >= rest_start + rest, mixed - rest, mixed), block)
    records = np.where(in_rest, num_blocks * block + mixed - rest_start, places)
    records[~in_rest] += permuted(blocks[~in_rest], num_blocks, seed, epoch) * block
    return records


def records_of(
    samples: Numbers, num_records: int, shuffle_seed: int | None, skip: int = 0, shuffle_block: int = 0
) -> Numbers:
    """The record behind each sample: in the source's order, or shuffled anew every epoch."""
    epochs, positions = epoch_of(samples + skip, num_records)
    if shuffle_seed is None:
        return positions
    records = np.empty_like(positions)
    for epoch in np.unique(epochs).tolist():
        inside = epochs == epoch
        if shuffle_block > 0:
            records[inside] = permuted_in_blocks(
                positions[inside], num_records, shuffle_seed, epoch, shuffle_block
            )
        else:
            records[inside] = permuted(positions[inside], num_records, shuffle_seed, epoch)
    return records


@cache
def _word_of(seed: int | None) -> Words:
    """What a job's seed is to `_deal`: one word, none where nothing is shuffled."""
    return np.empty(0, np.uint64) if seed is None else keyed(seed)


@final
@dataclass(frozen=True, kw_only=True)
class TrainSchedule:
    """The rank's batches after `consumed` samples, batch 0 being the first of them."""

    num_records: int
    batch_size: int
    rank: int = 0
    size: int = 1
    consumed: int = 0
    shuffle_seed: int | None = None
    shuffle_block: int = 0
    """Records that a shuffle leaves side by side; 0 mixes all records."""
    skip: int = 0

    def __call__(self, n: int) -> Draw:
        consumed = self.consumed + n * self.batch_size * self.size
        if self.shuffle_seed is not None and self.shuffle_block > 0:
            samples = local_samples(consumed, self.batch_size, self.rank, self.size)
            records = records_of(samples, self.num_records, self.shuffle_seed, self.skip, self.shuffle_block)
            return Draw(records, samples)
        samples, records = np.empty(self.batch_size, np.int64), np.empty(self.batch_size, np.int64)
        word = _word_of(self.shuffle_seed)
        _deal(consumed + self.rank, self.size, self.skip, self.num_records, word, samples, records)
        return Draw(records, samples)


@final
@dataclass(frozen=True, kw_only=True)
class TestSchedule:
    """The batches of test passes, dealt to the ranks: global batch b of a pass belongs to rank b mod size.

    A pass is test_iter batches, whatever the size; the next pass goes on where the last one stopped, as
    Caffe's does. The source is read in its order, from the start again after the end.
    """

    __test__ = False  # a name that pytest would otherwise collect

    num_records: int
    batch_size: int
    test_iter: int
    rank: int = 0
    size: int = 1

    @property
    def batches(self) -> int:
        """How many of a pass's batches are this rank's; may be 0."""
        return len(range(self.rank, self.test_iter, self.size))

    def __call__(self, n: int) -> Draw:
        passes, turn = divmod(n, self.batches)
        batch = passes * self.test_iter + self.rank + turn * self.size
        samples = batch * self.batch_size + np.arange(self.batch_size, dtype=np.int64)
        return Draw(samples % self.num_records, samples)
