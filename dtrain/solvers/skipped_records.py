"""Bad records that a job replaced: one count for all ranks, told, exported and limited."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.comm.abort import agree
from dtrain.comm.communicator import Communicator
from dtrain.data.bad_records import too_many
from dtrain.errors import DataError
from dtrain.layers.data_source import DataSource
from dtrain.metrics.recorder import Recorder
from dtrain.net import Net

logger = logging.getLogger(__name__)


@final
class SkippedRecords:
    """Different bad records of each source, however many ranks met them and however often.

    A record counts in the step that consumed it. The exported counters of all ranks add up to the number:
    a record that several ranks met for the first time in one step is the lowest one's.
    """

    def __init__(self, nets: Sequence[Net], comm: Communicator, recorder: Recorder) -> None:
        self._comm = comm
        self._sources = [
            (layer.source_name, layer.bad_records)
            for net in nets
            for layer in net.layers
            if isinstance(layer, DataSource) and layer.bad_records is not None
        ]
        self.limit = max((bad.limit for _, bad in self._sources), default=0)
        self.counts: dict[str, set[int]] = {name: set() for name, _ in self._sources}
        """The records of each source that the job has replaced."""
        about = "Different bad records that the job replaced and this rank was the first to meet."
        self._counters = {
            name: recorder.counter("bad_records_total", about, {"source": name}) for name in self.counts
        }
        self._told = [0] * len(self._sources)  # how many of each source's the other ranks have heard of
        self._num = comm.allocate(1, np.int64)

    def check(self) -> None:
        """Agree on what was met since the last check; too many raise DataError on every rank. Collective."""
        if not self.limit:
            return
        fresh: list[tuple[str, int, str]] = []
        for place, (name, bad) in enumerate(self._sources):
            fresh += [(name, record, why) for record, why in list(bad.replaced.items())[self._told[place] :]]
            self._told[place] = bad.count
        self._num[0] = len(fresh)
        self._comm.wait(self._comm.allreduce(self._num, "bad records"))
        if self._num[0]:
            self._add(self._comm.allgather_object(fresh))

    def _add(self, by_rank: Sequence[Sequence[tuple[str, int, str]]]) -> None:
        fault: DataError | None = None
        for rank, fresh in enumerate(by_rank):
            for name, record, reason in fresh:
                known = self.counts[name]
                if record in known:
                    continue
                if len(known) == self.limit:
                    fault = fault or too_many(reason, self.limit)
                    continue
                known.add(record)
                if rank == self._comm.rank:
                    self._counters[name].add()
        agree(self._comm, fault)
        self._say()

    def tell(self) -> None:
        """One line for each source, at the end of a run that replaces bad records. Collective."""
        self.check()
        if self.limit:
            self._say()

    def _say(self) -> None:
        for name, known in self.counts.items():
            logger.info("Bad records: %d of at most %d replaced in %s", len(known), self.limit, name)
