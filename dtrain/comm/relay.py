"""Carries rows of the board between machines, for the stall watch.

Every machine's leader sends its own rows to the first leader, which sends the whole table back. Nobody waits:
a row that does not arrive is an old row.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import final

import numpy as np
from mpi4py import MPI

from dtrain.comm.board import ROW, Board
from dtrain.comm.communicator import Array


@final
class Relay:
    """`groups[i]` are the world ranks whose rows leader i's machine writes."""

    def __init__(self, leaders: MPI.Comm, groups: Sequence[Sequence[int]], board: Board) -> None:
        self.leaders = leaders
        self.groups = [np.array(group) for group in groups]
        self.board = board
        self.others = np.setdiff1d(np.arange(board.size), self.groups[leaders.rank])
        self.sending: dict[int, tuple[MPI.Request, Array]] = {}

    def exchange(self) -> None:
        if self.leaders.rank == 0:
            for source in range(1, self.leaders.size):
                self._receive(source, self.groups[source])
            for target in range(1, self.leaders.size):
                self._send(target, np.arange(self.board.size))
        else:
            self._receive(0, np.arange(self.board.size))
            self._send(0, self.groups[self.leaders.rank])

    def _send(self, target: int, ranks: Array) -> None:
        if target in self.sending and not self.sending[target][0].Test():
            return
        rows = self.board.rows[ranks]
        rows["since"] = time.monotonic() - rows["since"]  # clocks of two machines have no common zero
        self.sending[target] = (self.leaders.Isend(rows.view(np.uint8), target), rows)

    def _receive(self, source: int, ranks: Array) -> None:
        while self.leaders.Iprobe(source):
            rows = np.empty(len(ranks), ROW)
            self.leaders.Recv(rows.view(np.uint8), source)
            rows["since"] = time.monotonic() - rows["since"]
            for rank, row in zip(ranks, rows, strict=True):
                if rank in self.others:
                    self.board.rows[rank] = row
