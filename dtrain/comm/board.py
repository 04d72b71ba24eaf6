"""A table that says, for every rank, where it is and what it waits for.

The ranks of one machine share one table in memory and write their own row; rows of other machines
are filled in by the stall watch.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import Array

TEXT_BYTES = 56

ROW = np.dtype(
    [
        ("entered", np.int64),  # collectives that this rank has begun
        ("awaited", np.int64),  # the collective that this rank is blocked in, 0 when in none
        ("since", np.float64),  # monotonic seconds at which it began to wait
        ("pid", np.int64),  # 0 until the rank has joined
        ("left", np.int64),  # 1 when the rank has closed its communicator
        ("phase", f"S{TEXT_BYTES}"),
        ("label", f"S{TEXT_BYTES}"),  # what the collective is for
        ("host", f"S{TEXT_BYTES}"),
        ("device_at", np.int64),  # the collective that the rank's GPU is in, by its label's number; 0 in none
        ("device_s", np.float64),  # how long it has been seen there
        ("device_label", f"S{TEXT_BYTES}"),
    ]
)


@final
@dataclass(frozen=True)
class Standing:
    """One row of the table, read."""

    rank: int
    entered: int
    awaited: int
    waited_s: float
    pid: int
    left: bool
    phase: str
    label: str
    host: str
    device_at: int = 0
    device_s: float = 0.0
    device_label: str = ""

    @property
    def name(self) -> str:
        return f"rank {self.rank} on {self.host} (pid {self.pid})"


@final
class Board:
    """The table, as seen and written by `rank`; `fd` is the file behind the memory where ranks share it."""

    def __init__(self, memory: Array, fd: int | None, rank: int, size: int) -> None:
        self.rows: npt.NDArray[np.void] = memory.view(ROW)
        assert len(self.rows) == size
        self.rank, self.size = rank, size
        self.fd = fd
        self._entered, self._awaited = self.rows["entered"], self.rows["awaited"]
        self._since, self._label, self._phase = self.rows["since"], self.rows["label"], self.rows["phase"]
        self.rows["host"][rank] = _text(platform.node())
        self._phase[rank] = b"start"
        self.rows["pid"][rank] = os.getpid()

    def enter(self, number: int, label: str) -> None:
        self._label[self.rank] = _text(label)
        self._entered[self.rank] = number

    def begin_wait(self, number: int, label: str) -> None:
        self._label[self.rank] = _text(label)
        self._since[self.rank] = time.monotonic()
        self._awaited[self.rank] = number

    def end_wait(self) -> None:
        self._awaited[self.rank] = 0

    def phase(self, phase: str) -> None:
        self._phase[self.rank] = _text(phase)

    def device(self, number: int, seconds: float, label: str) -> None:
        row = self.rows[self.rank]
        row["device_label"] = _text(label)
        row["device_s"] = seconds
        row["device_at"] = number

    def leave(self) -> None:
        self.rows["left"][self.rank] = 1

    def leave_all(self) -> None:
        """The job is being ended: nobody is to be blamed for being gone."""
        self.rows["left"] = 1

    def close(self) -> None:
        if self.fd is not None:
            os.close(self.fd)

    def standings(self) -> list[Standing]:
        """The rows of the ranks that have joined."""
        rows, now = self.rows.copy(), time.monotonic()
        return [
            Standing(
                rank=rank,
                entered=int(row["entered"]),
                awaited=int(row["awaited"]),
                waited_s=now - float(row["since"]) if row["awaited"] else 0.0,
                pid=int(row["pid"]),
                left=bool(row["left"]),
                phase=bytes(row["phase"]).decode(errors="replace"),
                label=bytes(row["label"]).decode(errors="replace"),
                host=bytes(row["host"]).decode(errors="replace"),
                device_at=int(row["device_at"]),
                device_s=float(row["device_s"]),
                device_label=bytes(row["device_label"]).decode(errors="replace"),
            )
            for rank, row in enumerate(rows)
            if row["pid"]
        ]


def table_bytes(size: int) -> int:
    return size * ROW.itemsize


def _text(text: str) -> bytes:
    return text.encode()[:TEXT_BYTES]
