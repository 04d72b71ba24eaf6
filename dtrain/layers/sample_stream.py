"""Where a layer is in the job's stream of samples, for layers that read their batches themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from dtrain.data.sampler import Draw, TestSchedule, TrainSchedule, skip_of
from dtrain.layers.layer import Scope


@final
class SampleStream:
    """The batches of this rank, one after the other, as `DataSource` says they are dealt.

    records of a draw count through the source in its order, again and again; in training `shuffle` gives
    every epoch an order of its own, and `rand_skip` passes over fewer records than that at the very start.
    """

    def __init__(
        self,
        scope: Scope,
        num_records: int,
        batch_size: int,
        *,
        shuffle: bool = False,
        shuffle_block: int = 0,
        rand_skip: int = 0,
    ) -> None:
        self.scope = scope
        self.num_records = num_records
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.shuffle_block = shuffle_block
        self.rand_skip = rand_skip
        self.consumed = 0  # where the last seek went
        self.served = 0  # local batches since then

    @property
    def is_dealt_by_batch(self) -> bool:
        """Whether a whole batch goes to each rank, as in test passes, and not every size-th sample."""
        return not self.scope.is_training and self.scope.test_iter > 0

    def next(self) -> Draw:
        """Records and sample numbers of the next batch."""
        n = self.served
        self.served += 1
        return self.schedule()(n)

    def schedule(self) -> Callable[[int], Draw]:
        """This rank's batches 0, 1, 2, ... from where the last seek went, for who counts `served` himself."""
        scope = self.scope
        if self.is_dealt_by_batch:
            test = TestSchedule(
                num_records=self.num_records,
                batch_size=self.batch_size,
                test_iter=scope.test_iter,
                rank=scope.rank,
                size=scope.size,
            )
            passes = self.consumed // (scope.test_iter * self.batch_size)
            return lambda n: test(n + passes * test.batches)
        return TrainSchedule(
            num_records=self.num_records,
            batch_size=self.batch_size,
            rank=scope.rank,
            size=scope.size,
            consumed=self.consumed,
            shuffle_seed=scope.seed if self.shuffle else None,
            shuffle_block=self.shuffle_block,
            skip=skip_of(self.rand_skip, scope.seed),
        )

    def position(self) -> int:
        """Samples that the whole job has consumed."""
        scope = self.scope
        if self.is_dealt_by_batch:
            mine = len(range(scope.rank, scope.test_iter, scope.size))
            passes = self.served // mine if mine else 0
            return self.consumed + passes * scope.test_iter * self.batch_size
        return self.consumed + self.served * self.batch_size * scope.size

    def seek(self, samples: int) -> None:
        """Go on as if the job had consumed so many."""
        self.consumed = samples
        self.served = 0
