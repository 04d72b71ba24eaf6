"""Where a layer is in the job's stream of samples, for layers that read their batches themselves."""

from __future__ import annotations

from typing import final

from dtrain.data.sampler import Draw, TestSchedule, TrainSchedule
from dtrain.layers.layer import Scope


@final
class SampleStream:
    """The batches of this rank, one after the other, as `DataSource` says they are dealt.

    records of a draw count through the source in its order, again and again.
    """

    def __init__(self, scope: Scope, num_records: int, batch_size: int) -> None:
        self.scope = scope
        self.num_records = num_records
        self.batch_size = batch_size
        self.consumed = 0  # where the last seek went
        self.served = 0  # local batches since then

    @property
    def is_dealt_by_batch(self) -> bool:
        """Whether a whole batch goes to each rank, as in test passes, and not every size-th sample."""
        return not self.scope.is_training and self.scope.test_iter > 0

    def next(self) -> Draw:
        """Records and sample numbers of the next batch."""
        scope, n = self.scope, self.served
        self.served += 1
        if self.is_dealt_by_batch:
            test = TestSchedule(
                num_records=self.num_records,
                batch_size=self.batch_size,
                test_iter=scope.test_iter,
                rank=scope.rank,
                size=scope.size,
            )
            passes = self.consumed // (scope.test_iter * self.batch_size)
            return test(n + passes * test.batches)
        schedule = TrainSchedule(
            num_records=self.num_records,
            batch_size=self.batch_size,
            rank=scope.rank,
            size=scope.size,
            consumed=self.consumed,
        )
        return schedule(n)

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
