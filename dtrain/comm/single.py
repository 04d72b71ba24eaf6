"""A group of one process: every collective is already done."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import Array, Communicator, Ticket, aligned_zeros
from dtrain.comm.threads import own_cores


@final
class SingleCommunicator(Communicator):
    """Rank 0 of 1."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self.local_rank, self.local_size = 0, 1
        self.threads = own_cores()
        self.is_capturable = True

    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        return aligned_zeros(count, dtype)

    def allreduce(self, array: Array, label: str = "") -> Ticket:
        return Ticket(0)

    def wait(self, ticket: Ticket) -> None:
        pass

    def poll(self) -> None:
        pass

    def broadcast(self, array: Array, root: int = 0) -> None:
        assert root == 0, f"root {root} of a group of one"

    def on_host(self, array: Array) -> Array:
        return array

    def allgather_object(self, obj: object) -> list[Any]:
        return [obj]

    def barrier(self) -> None:
        pass

    def note(self, phase: str) -> None:
        pass

    def close(self, *, failed: bool = False) -> None:
        pass
