"""What the ranks do together: each says what it was asked to do, and all do what any one was asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import Flag
from typing import final

import numpy as np

from dtrain.comm.communicator import Communicator, Ticket


@final
class Request(Flag):
    """What a signal or a script asks of a run."""

    NONE = 0
    SNAPSHOT = 1
    STOP = 2


ASKABLE = (Request.SNAPSHOT, Request.STOP)


@final
class Votes:
    """One vote at a time: `cast` starts a sum over the ranks, `result` ends it, and work goes on between.

    `pending` tells what this rank has been asked for; `settle` hears what all ranks have agreed to do.
    """

    def __init__(
        self, comm: Communicator, pending: Callable[[], Request], settle: Callable[[Request], None]
    ) -> None:
        self._comm = comm
        self._pending = pending
        self._settle = settle
        self._counts = comm.allocate(len(ASKABLE), np.int64)
        self._ticket: Ticket | None = None
        self.agreed = Request.NONE
        """What all ranks have agreed to do and have not yet done."""

    def cast(self) -> None:
        """Say what this rank was asked for. Collective."""
        mine = self._pending()
        self._counts[:] = [request in mine for request in ASKABLE]
        self._ticket = self._comm.allreduce(self._counts, "what signals ask for")

    def result(self) -> Request:
        """What any rank was asked for, added to what is not yet done. Collective."""
        assert self._ticket is not None, "a vote is cast before its result is asked for"
        self._comm.wait(self._ticket)
        self._ticket = None
        for request, count in zip(ASKABLE, self._counts, strict=True):
            if count:
                self.agreed |= request
        self._settle(self.agreed)
        return self.agreed

    def done(self, request: Request) -> None:
        """All ranks have done it."""
        self.agreed &= ~request
