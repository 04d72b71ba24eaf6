"""The stall watch: a thread that names the rank that the others wait for, and ends a stuck job."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import final

from dtrain.comm import witness
from dtrain.comm.board import Board, Standing
from dtrain.errors import CommError, StallError

WARN_S = 60.0
ABORT_S = 600.0
GRACE_S = 2.0  # the lowest waiting rank speaks for all; the others end the job if it does not
STDERR = 2
NOBODY = "none, the network stands still"


def holding_up(standings: Sequence[Standing], number: int) -> list[Standing]:
    """The ranks that have not arrived at collective `number`, or have and do not help to complete it."""
    late = [standing for standing in standings if standing.entered < number]
    return late or [standing for standing in standings if not standing.awaited]


def stall_text(waiter: Standing, standings: Sequence[Standing]) -> str:
    """Who waits for what, since when, and for whom."""
    culprits = "; ".join(
        f'{late.name}, phase "{late.phase}", after collective {late.entered}'
        for late in holding_up(standings, waiter.awaited)
    )
    device = f", its GPU in {waiter.device_label}" if waiter.device_at else ""
    return (
        f'{waiter.name}: waiting {waiter.waited_s:.1f} s in phase "{waiter.phase}" for collective '
        f"{waiter.awaited} ({waiter.label}){device}; not arrived: {culprits or NOBODY}"
    )


@final
class Watch:
    """Looks at the board until `stop`.

    After `warn_s` in one collective the lowest waiting rank prints who has not arrived, and a rank that is
    waited for prints its Python stack. After `abort_s`, or when a rank of this machine dies, `end` is called
    with the error; it must end every rank. `exchange` keeps the rows of other machines fresh. Whoever has
    something else to watch puts it into `also`.
    """

    def __init__(
        self,
        board: Board,
        local_pids: dict[int, int],
        *,
        warn_s: float,
        abort_s: float,
        end: Callable[[CommError], None],
        exchange: Callable[[], None],
    ) -> None:
        self.board = board
        self.warn_s, self.abort_s = warn_s, abort_s
        self.end, self.exchange = end, exchange
        self.also: tuple[Callable[[], None], ...] = ()
        self.interval_s = min(1.0, warn_s / 4, abort_s / 4)
        self.warned = self.dumped = 0
        self.pid_fds = _open_pids(local_pids, board.rank)
        self.wake_read, self.wake_write = os.pipe()
        self.witness = _start_witness(board, local_pids) if min(local_pids) == board.rank else None
        self.thread = threading.Thread(target=self._run, name="stall watch", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        os.write(self.wake_write, b"x")
        self.thread.join()
        self.board.leave()
        if self.witness is not None:
            process, wake = self.witness
            os.close(wake)
            process.wait()
        for fd in (self.wake_read, self.wake_write, *self.pid_fds):
            os.close(fd)

    def _run(self) -> None:
        poller = select.poll()
        for fd in (self.wake_read, *self.pid_fds):
            poller.register(fd, select.POLLIN)
        while True:
            events = [fd for fd, _ in poller.poll(self.interval_s * 1000)]
            if self.wake_read in events:
                return
            for fd in events:
                poller.unregister(fd)
                self._rank_is_gone(self.pid_fds[fd])
            self.exchange()
            for look in self.also:
                look()
            self._look()

    def _rank_is_gone(self, rank: int) -> None:
        gone = next(standing for standing in self.board.standings() if standing.rank == rank)
        if gone.left:
            return
        time.sleep(GRACE_S)  # mpirun ends the job by itself, and the witness has named the rank
        last = f" ({gone.label})" if gone.label else ""
        self.end(
            CommError(
                f'{gone.name}: the process died in phase "{gone.phase}" '
                f"after collective {gone.entered}{last}; every rank is ended"
            )
        )

    def _look(self) -> None:
        standings = self.board.standings()
        mine = next(standing for standing in standings if standing.rank == self.board.rank)
        waiters = [standing for standing in standings if standing.waited_s > self.warn_s]
        if not waiters:
            return
        first = waiters[0]
        if first is mine and self.warned < mine.awaited:
            self.warned = mine.awaited
            say(f"stall: {stall_text(mine, standings)}")
        if not mine.awaited and mine in holding_up(standings, first.awaited) and self.dumped < first.awaited:
            self.dumped = first.awaited
            say(f"stall: {mine.name}: the others wait for this rank, which is here:\n{main_stack()}")
        patience_s = self.abort_s if first is mine else self.abort_s + GRACE_S
        if mine.waited_s > patience_s:
            self.end(
                StallError(f"{stall_text(mine, standings)}; a collective must end in {self.abort_s:g} s")
            )


def say(line: str) -> None:
    """One line to the process's standard error, in one write: ranks must not break each other's lines."""
    sys.stderr.flush()
    os.write(STDERR, f"{line}\n".encode())


def main_stack() -> str:
    """Where this process's main thread is."""
    frame = sys._current_frames()[threading.main_thread().ident or 0]
    return "".join(traceback.format_stack(frame)).rstrip()


def _start_witness(board: Board, pids: dict[int, int]) -> tuple[subprocess.Popen[bytes], int] | None:
    """The witness and the descriptor that ends it when closed; None where processes cannot be watched."""
    if board.fd is None:
        return None
    wake_read, wake_write = os.pipe()
    ranks = [f"{rank}:{pid}" for rank, pid in pids.items()]
    command = [sys.executable, "-I", "-S", witness.__file__, str(wake_read), *ranks]
    process = subprocess.Popen(
        command, stdin=board.fd, stdout=subprocess.PIPE, pass_fds=[wake_read], start_new_session=True
    )
    os.close(wake_read)
    assert process.stdout is not None
    with process.stdout as out:
        out.read()
    return process, wake_write


def _open_pids(pids: dict[int, int], own_rank: int) -> dict[int, int]:
    """Descriptors that become readable when a rank's process ends, and their ranks."""
    fds: dict[int, int] = {}
    if sys.platform == "linux":
        for rank, pid in pids.items():
            if rank != own_rank:
                with contextlib.suppress(OSError):  # Linux before 5.3 has no such descriptors
                    fds[os.pidfd_open(pid)] = rank
    return fds
