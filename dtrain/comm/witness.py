"""A process beside a machine's ranks that says which of them died.

When a rank is killed, mpirun kills the others within a millisecond, before one of them could speak. The
witness is in a session of its own and outlives them by one line. A bare interpreter runs it by path, as
`witness.py WAKE RANK:PID ...`, so it imports nothing that takes time. Its descriptor 0 is the board; it says
"ready" when it watches, and ends when the first rank has left the board and closed the other end of WAKE.
"""

from __future__ import annotations

import os
import select
import struct
import sys

GATHER_MS = 100.0  # after a first death, for others to show
ROW_FORMAT = "=qqdqq56s56s56sqd56s"  # dtrain.comm.board.ROW


def main(arguments: list[str]) -> None:
    wake, *ranks = arguments
    fds: dict[int, int] = {}
    leader = int(ranks[0].split(":")[0])
    poller = select.poll()
    poller.register(int(wake), select.POLLIN)
    for text in ranks:
        rank, pid = map(int, text.split(":"))
        fd = os.pidfd_open(pid)
        fds[fd] = rank
        poller.register(fd, select.POLLIN)
    os.write(1, b"ready")
    os.close(1)
    died: list[int] = []
    while fds:
        events = [fd for fd, _ in poller.poll(GATHER_MS if died else None)]
        if died and not events:
            break
        for fd in events:
            poller.unregister(fd)
            if fd in fds:
                rank = fds.pop(fd)
                if not row_of(rank)[4]:
                    died.append(rank)
        if int(wake) in events and row_of(leader)[4]:
            return
    if died:
        # mpirun has killed those that waited for the first to die, and may have been quicker than its end.
        tell([rank for rank in died if not row_of(rank)[1]] or died)


def row_of(rank: int) -> tuple[int, int, float, int, int, bytes, bytes, bytes]:
    """entered, awaited, since, pid, left, phase, label, host."""
    size = struct.calcsize(ROW_FORMAT)
    row = struct.unpack(ROW_FORMAT, os.pread(0, size, rank * size))
    entered, awaited, since, pid, left = row[:5]
    phase, label, host = (text.rstrip(b"\0") for text in row[5:8])
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
