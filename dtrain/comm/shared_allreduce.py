"""Allreduce inside a machine: every rank sums its own slice of all replicas and writes the sum into each.

A rank says that its array may be touched by raising its `published` count, and that its slice of everybody's
array is summed by raising its `finished` count: no lock, no message. Every rank works when it polls, on its
own core, so a bucket is summed between two layers of backward.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import ALIGNMENT_BYTES, Array
from dtrain.comm.shared_memory import fence, share

CHUNK_BYTES = 1 << 18  # a chunk of two replicas stays in the second-level cache between sum and copy

Test = Callable[[], bool]


@final
@dataclass
class Job:
    """One allreduce under way: this rank's slice, in the memory of every rank of the machine."""

    number: int
    replicas: list[Array]
    arrived: Test | None = None


def slice_of(count: int, itemsize: int, rank: int, size: int) -> slice:
    """The part of `count` elements that `rank` sums; parts meet at cache lines."""
    line = max(1, ALIGNMENT_BYTES // itemsize)
    lines = -(-count // line)
    return slice(min(count, lines * rank // size * line), min(count, lines * (rank + 1) // size * line))


@final
class SharedAllreduce:
    """Sums arrays that lie in windows which `allocate` gave out.

    `published` and `finished` are counts in memory that the machine's ranks share, one element a rank.
    `across` starts the sum of a slice over the machines, in place, and gives back its test; None when there
    is one machine.
    """

    def __init__(
        self,
        rank: int,
        published: npt.NDArray[np.int64],
        finished: npt.NDArray[np.int64],
        allgather: Callable[[object], list[Any]],
        across: Callable[[Array], Test] | None,
    ) -> None:
        self.rank, self.size = rank, len(published)
        self.published, self.finished = published, finished
        self.allgather = allgather
        self.across = across
        self.windows: list[list[Array]] = []
        self.arriving: deque[Job] = deque()
        self.crossing: deque[Job] = deque()
        self.issued = 0

    def allocate(self, count: int, dtype: npt.DTypeLike) -> Array | str:
        """A zeroed array in a new window, or why there is none."""
        kind = np.dtype(dtype)
        shared = share(self.allgather, count * kind.itemsize)
        if isinstance(shared, str):
            return shared
        os.close(shared.fd)
        self.windows.append(shared.windows)
        return shared.windows[self.rank].view(kind)

    def place(self, array: Array) -> tuple[int, int] | None:
        """Which window holds the array, and the byte at which it starts there; None for other memory."""
        address = array.__array_interface__["data"][0]
        for i, window in enumerate(self.windows):
            start = address - window[self.rank].__array_interface__["data"][0]
            if start >= 0 and start + array.nbytes <= window[self.rank].nbytes:
                return i, start
        return None

    def enqueue(self, array: Array, place: tuple[int, int]) -> int:
        """The number that `done` asks for."""
        window, start = place
        part = slice_of(array.size, array.itemsize, self.rank, self.size)
        replicas = [
            view[start : start + array.nbytes].view(array.dtype)[part] for view in self.windows[window]
        ]
        self.issued += 1
        self.arriving.append(Job(self.issued, replicas))
        fence()
        self.published[self.rank] = self.issued
        return self.issued

    def done(self, number: int) -> bool:
        self.advance()
        complete = bool(self.finished.min() >= number)
        fence()
        return complete

    def advance(self) -> None:
        """Sum what every rank has published."""
        while self.arriving and self.published.min() >= self.arriving[0].number:
            fence()
            job = self.arriving.popleft()
            if self.across is None:
                _sum(job.replicas, spread=True)
                self._finish(job)
            else:
                _sum(job.replicas, spread=False)
                job.arrived = self.across(job.replicas[0])
                self.crossing.append(job)
        while self.crossing and _has_arrived(self.crossing[0]):
            job = self.crossing.popleft()
            for replica in job.replicas[1:]:
                replica[:] = job.replicas[0]
            self._finish(job)

    def _finish(self, job: Job) -> None:
        fence()
        self.finished[self.rank] = job.number


def _has_arrived(job: Job) -> bool:
    return job.arrived is None or job.arrived()


def _sum(replicas: list[Array], *, spread: bool) -> None:
    """replicas[0] <- sum in rank order, chunk by chunk, and with `spread` the others too."""
    first, *others = replicas
    step = max(1, CHUNK_BYTES // first.itemsize)
    with np.errstate(over="ignore", invalid="ignore"):  # the solver judges infinite gradients, as with MPI
        for start in range(0, first.size, step):
            chunk = slice(start, start + step)
            total = first[chunk]
            for other in others:
                total += other[chunk]
            if spread:
                for other in others:
                    other[chunk] = total
