"""A group of processes under MPI. Importing this module starts MPI."""

from __future__ import annotations

import pickle
from typing import Any, final

import numpy as np
import numpy.typing as npt
from mpi4py import MPI

from dtrain.comm.communicator import Array, Communicator, Ticket, aligned_zeros
from dtrain.comm.polite import wait_until
from dtrain.comm.threads import affinity, crowded, own_cores, quota


@final
class MpiCommunicator(Communicator):
    """The ranks of `world`, on NumPy arrays."""

    def __init__(self, world: MPI.Intracomm | None = None) -> None:
        self.world = (world or MPI.COMM_WORLD).Dup()
        self.rank, self.size = self.world.rank, self.world.size
        self.node = self.world.Split_type(MPI.COMM_TYPE_SHARED, self.rank)
        self.local_rank, self.local_size = self.node.rank, self.node.size
        masks = self.node.allgather(affinity())
        self.threads = own_cores(masks, self.local_rank)
        self.polite = crowded(masks, quota())
        self.issued = 0
        self.pending: dict[Ticket, tuple[MPI.Request, Array]] = {}

    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        return aligned_zeros(count, dtype)

    def allreduce(self, array: Array, label: str = "") -> Ticket:
        assert array.flags.c_contiguous, "a collective works on contiguous memory"
        self.issued += 1
        ticket = Ticket(self.issued)
        self.pending[ticket] = (self.world.Iallreduce(MPI.IN_PLACE, array), array)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        if ticket in self.pending:
            request, _ = self.pending[ticket]
            self._complete(request)
            del self.pending[ticket]

    def poll(self) -> None:
        for ticket, (request, _) in list(self.pending.items()):
            if request.Test():
                del self.pending[ticket]

    def broadcast(self, array: Array, root: int = 0) -> None:
        assert array.flags.c_contiguous, "a collective works on contiguous memory"
        self._complete(self.world.Ibcast(array, root))

    def allgather_object(self, obj: object) -> list[Any]:
        mine = np.frombuffer(pickle.dumps(obj), np.uint8)
        lengths = np.empty(self.size, np.int64)
        self._complete(self.world.Iallgather(np.array([mine.size], np.int64), lengths))
        everyone = np.empty(int(lengths.sum()), np.uint8)
        starts = np.cumsum(lengths) - lengths
        self._complete(self.world.Iallgatherv(mine, (everyone, (lengths, starts), MPI.BYTE)))
        return [
            pickle.loads(everyone[start : start + length].tobytes())
            for start, length in zip(starts, lengths, strict=True)
        ]

    def barrier(self) -> None:
        self._complete(self.world.Ibarrier())

    def note(self, phase: str) -> None:
        pass

    def close(self, *, failed: bool = False) -> None:
        if failed:
            MPI.COMM_WORLD.Abort(1)
        self.barrier()
        self.node.Free()
        self.world.Free()

    def _complete(self, request: MPI.Request) -> None:
        wait_until(request.Test, polite=self.polite)
