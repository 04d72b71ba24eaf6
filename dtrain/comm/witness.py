"""A process beside a machine's ranks that says which of them died.

When a rank is killed, mpirun kills the others within a millisecond, before one of them could speak. The
witness is in a session of its own and outlives them by one line. A bare interpreter runs it by path, as
`witness.py WAKE RANK:PID ...`, so it imports nothing that takes time. Its descriptor 0 is the board; it ends
when the first rank has left the board and closed the other end of descriptor WAKE.
"""

from __future__ import annotations

import os
import select
import struct
import sys

ROW_FORMAT = "=qqdqq56s56s56s"  # dtrain.comm.board.ROW


def main(arguments: list[str]) -> None:
    wake, *ranks = arguments
    fds: dict[int, int] = {}
    leader = int(ranks[0].split(":")[0])
    poller = select.poll()
    poller.register(int(wake), select.POLLIN)
    for text in ranks:
        rank, pid = map(int, text.split(":"))
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            tell([rank])
            return
        fds[fd] = rank
        poller.register(fd, select.POLLIN)
    while fds:
        events = [fd for fd, _ in poller.poll()]
        died = [fds[fd] for fd in events if fd in fds and not row_of(fds[fd])[4]]
        if died:
            tell(died)
            return
        for fd in events:
            poller.unregister(fd)
            fds.pop(fd, None)
        if int(wake) in events and row_of(leader)[4]:
            return


def row_of(rank: int) -> tuple[int, int, float, int, int, bytes, bytes, bytes]:
    """entered, awaited, since, pid, left, phase, label, host."""
    size = struct.calcsize(ROW_FORMAT)
    entered, awaited, since, pid, left, *texts = struct.unpack(ROW_FORMAT, os.pread(0, size, rank * size))
    phase, label, host = (text.rstrip(b"\0") for text in texts)
    return entered, awaited, since, pid, left, phase, label, host


def tell(ranks: list[int]) -> None:
    lines = []
    for rank in ranks:
        entered, _, _, pid, _, phase, label, host = row_of(rank)
        lines.append(
            f"error: rank {rank} on {host.decode()} (pid {pid}): the process died in phase "
            f'"{phase.decode()}" after collective {entered} ({label.decode()})'
        )
    os.write(2, ("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main(sys.argv[1:])
