"""A group of processes under MPI. Importing this module starts MPI."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn, final

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from dtrain.comm.abort import AgreedError
from dtrain.comm.board import Board, table_bytes
from dtrain.comm.communicator import (
    ALIGNMENT_BYTES,
    Array,
    Communicator,
    Ticket,
    aligned_zeros,
)
from dtrain.comm.polite import wait_until
from dtrain.comm.relay import Relay
from dtrain.comm.shared_allreduce import SharedAllreduce
from dtrain.comm.shared_memory import share
from dtrain.comm.threads import affinity, crowded, own_cores, quota
from dtrain.comm.watch import ABORT_S, WARN_S, Watch, say
from dtrain.errors import CommError

log = logging.getLogger(__name__)

CHECKED_COLLECTIVES = 64
"""The first collectives compare their arguments over the ranks; an iteration repeats itself after that."""

LAST_WORDS_S = 0.2  # mpirun drops what it has not read when it ends a job

Test = Callable[[], bool]


@final
class MpiCommunicator(Communicator):
    """The ranks of `world`, on NumPy arrays.

    Arrays from `allocate` are summed through shared memory within a machine, and over MPI between
    machines, each rank its slice; other arrays by MPI alone. `machine_size` splits one machine into pretended
    machines of that many ranks, to test what happens between them.
    """

    def __init__(
        self,
        world: MPI.Intracomm | None = None,
        *,
        warn_s: float = WARN_S,
        abort_s: float = ABORT_S,
        machine_size: int | None = None,
    ) -> None:
        self.world = (world or MPI.COMM_WORLD).Dup()
        self.rank, self.size = self.world.rank, self.world.size
        if machine_size is None:
            self.node: MPI.Comm = self.world.Split_type(MPI.COMM_TYPE_SHARED, self.rank)
        else:
            self.node = self.world.Split(self.rank // machine_size, self.rank)
        self.local_rank, self.local_size = self.node.rank, self.node.size
        self.is_capturable = False
        self.issued = 0
        self.pending: dict[Ticket, tuple[Test, Array, str]] = {}
        self.sliced: SharedAllreduce | None = None
        masks = self.node.allgather(affinity())
        self.threads = own_cores(masks, self.local_rank)
        self.polite = crowded(masks, quota())
        self.leaders: MPI.Comm = MPI.COMM_NULL
        self.board, groups = self._join_board()
        self.peers = self._share_counters(groups)
        self.watch = self._start_watch(groups, warn_s, abort_s) if self.size > 1 else None
        self.world.Barrier()  # from here on a rank that dies is named

    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        self._begin("allocate", None, f"{np.dtype(dtype)}[{count}]")
        if self.sliced is None:
            return aligned_zeros(count, dtype)
        array = self.sliced.allocate(count, dtype)
        fault = array if isinstance(array, str) else ""
        faults = [text for text in self._gather(self.world, fault, "allocate") if text]
        if faults and not fault:
            self.sliced.windows.pop()
        if isinstance(array, str) or faults:
            self._warn(f"a gradient buffer of {count} {np.dtype(dtype)} is summed by MPI alone: {faults[0]}")
            return aligned_zeros(count, dtype)
        return array

    def allreduce(self, array: Array, label: str = "") -> Ticket:
        label = label or "allreduce"
        _check_is_on_host(array, label)
        place = self.sliced.place(array) if self.sliced else None
        where = f"window {place[0]} at {place[1]}" if place else "own memory"
        ticket = Ticket(self._begin("allreduce", array, where, label))
        test: Test
        if self.sliced and place:
            test = partial(self.sliced.done, self.sliced.enqueue(array, place))
        else:
            test = self.world.Iallreduce(MPI.IN_PLACE, array).Test
        self.pending[ticket] = (test, array, label)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        if ticket in self.pending:
            test, _, label = self.pending[ticket]
            self._complete(test, ticket, label)
            self.pending.pop(ticket, None)

    def poll(self) -> None:
        self._advance()
        for ticket, (test, _, _) in list(self.pending.items()):
            if not test():
                return
            del self.pending[ticket]

    def broadcast(self, array: Array, root: int = 0) -> None:
        _check_is_on_host(array, "broadcast")
        number = self._begin("broadcast", array, f"from rank {root}")
        self._complete(self.world.Ibcast(array, root).Test, number, "broadcast")

    def on_host(self, array: Array) -> Array:
        return array

    def allgather_object(self, obj: object) -> list[Any]:
        self._begin("allgather_object")
        return self._gather(self.world, obj, "allgather_object")

    def barrier(self) -> None:
        number = self._begin("barrier")
        self._complete(self.world.Ibarrier().Test, number, "barrier")

    def note(self, phase: str) -> None:
        self.board.phase(phase)

    @contextmanager
    def waiting(self, label: str) -> Iterator[None]:
        """Run a body that waits for all ranks by other means, watched as a collective is. Collective."""
        number = self._begin(label)
        self.board.begin_wait(number, label)
        try:
            yield
        finally:
            self.board.end_wait()

    def close(self, *, failed: bool = False) -> None:
        if failed:
            self._abort()
        for ticket in list(self.pending):
            self.wait(ticket)
        self.barrier()
        if self.watch:
            self.watch.stop()
        self.board.close()
        for group in (self.peers, self.leaders, self.node, self.world):
            if group != MPI.COMM_NULL:
                group.Free()

    def _begin(self, kind: str, array: Array | None = None, details: str = "", label: str = "") -> int:
        """Number a collective; the first ones are compared over the ranks before they start."""
        self.issued += 1
        assert array is None or array.flags.c_contiguous, "a collective works on contiguous memory"
        self.board.enter(self.issued, label or kind)
        if self.issued <= CHECKED_COLLECTIVES:
            what = "" if array is None else f"{array.dtype}{list(array.shape)}"
            call = " ".join(part for part in (kind, what, details) if part)
            calls = self._gather(self.world, call, label or kind)
            for rank, call in enumerate(calls):
                if call != calls[0]:
                    raise AgreedError(
                        f"collective {self.issued}: all ranks must call the same on the same shape and type, "
                        f"got {calls[0]} at rank 0 and {call} at rank {rank}",
                        speaker=0,
                    )
        return self.issued

    def _gather(self, group: MPI.Comm, obj: object, label: str) -> list[Any]:
        mine = np.frombuffer(pickle.dumps(obj), np.uint8)
        lengths = np.empty(group.size, np.int64)
        self._complete(group.Iallgather(np.array([mine.size], np.int64), lengths).Test, self.issued, label)
        everyone = np.empty(int(lengths.sum()), np.uint8)
        starts = np.cumsum(lengths) - lengths
        self._complete(
            group.Iallgatherv(mine, (everyone, (lengths, starts), MPI.BYTE)).Test, self.issued, label
        )
        return [
            pickle.loads(everyone[start : start + length].tobytes())
            for start, length in zip(starts, lengths, strict=True)
        ]

    def _complete(self, test: Test, number: int, label: str) -> None:
        """Wait, on the board, while this rank's part in earlier sums goes on: others may need it."""
        if test():
            return

        def done() -> bool:
            self._advance()
            return test()

        self.board.begin_wait(number, label)
        wait_until(done, polite=self.polite)
        self.board.end_wait()

    def _advance(self) -> None:
        if self.sliced:
            self.sliced.advance()

    def _join_board(self) -> tuple[Board, list[list[int]]]:
        """The table of this rank's machine, and the groups of ranks that share one, by their lowest rank."""
        shared = share(self.node.allgather, table_bytes(self.size))
        if isinstance(shared, str):
            self._warn(f"ranks of one machine share no memory, sums go by MPI alone: {shared}")
            group = [self.rank]
            board = Board(aligned_zeros(table_bytes(self.size), np.uint8), None, self.rank, self.size)
        else:
            group = self.node.allgather(self.rank)
            board = Board(shared.windows[0], shared.fd, self.rank, self.size)
        groups = self.world.allgather(group)
        return board, sorted(group for rank, group in enumerate(groups) if rank == group[0])

    def _share_counters(self, groups: list[list[int]]) -> MPI.Comm:
        """Ready the sums through shared memory where all machines hold equally many ranks.

        Gives back the ranks that have this rank's number on other machines, with whom it sums its slices.
        """
        if self.local_size == 1 or any(len(group) != self.local_size for group in groups):
            return MPI.COMM_NULL
        peers = self.world.Split(self.local_rank, self.rank)
        shared = share(self.node.allgather, self.local_size * ALIGNMENT_BYTES)
        assert not isinstance(shared, str), shared
        os.close(shared.fd)
        counters = shared.windows[0].view(np.int64).reshape(self.local_size, -1)

        def across(part: Array) -> Test:
            return peers.Iallreduce(MPI.IN_PLACE, part).Test

        self.sliced = SharedAllreduce(
            self.local_rank,
            counters[:, 0],
            counters[:, 1],
            partial(self._gather, self.node, label="allocate"),
            across if len(groups) > 1 else None,
        )
        return peers

    def _start_watch(self, groups: list[list[int]], warn_s: float, abort_s: float) -> Watch:
        (own,) = (group for group in groups if self.rank in group)
        color = 0 if self.rank == own[0] else MPI.UNDEFINED
        self.leaders = self.world.Split(color, self.rank)
        relay = None
        if len(groups) > 1 and self.leaders != MPI.COMM_NULL:
            if MPI.Query_thread() == MPI.THREAD_MULTIPLE:
                relay = Relay(self.leaders, groups, self.board)
            else:
                self._warn(
                    "this MPI is not for threads; the stall watch sees only the ranks of its own machine"
                )
        self.world.Barrier()  # every rank has written its row
        pids = {rank: int(self.board.rows["pid"][rank]) for rank in own}
        return Watch(
            self.board,
            pids,
            warn_s=warn_s,
            abort_s=abort_s,
            end=self._end,
            exchange=relay.exchange if relay else _nothing,
        )

    def _end(self, error: CommError) -> None:
        say(f"error: {error}")
        self._abort()

    def _abort(self) -> NoReturn:
        """End every rank of the job at once with exit status 1."""
        self.board.leave_all()
        sys.stdout.flush()
        time.sleep(LAST_WORDS_S)
        MPI.COMM_WORLD.Abort(1)
        os._exit(1)  # an MPI whose Abort returns

    def _warn(self, text: str) -> None:
        if self.rank == 0:
            log.warning("comm: %s", text)


def _check_is_on_host(array: Array, label: str) -> None:
    if not isinstance(array, np.ndarray):
        kind = type(array)
        raise CommError(
            f"{label}: MPI must be given host memory, got a {kind.__module__}.{kind.__name__}; "
            f"`dtrain train` sums a GPU's arrays by NCCL, and with --comm mpi through host memory"
        )


def _nothing() -> None:
    pass
