"""Memory that all ranks of one machine see.

Anonymous memory files, opened by the others through /proc: a killed job leaves nothing behind, and the
small /dev/shm of a container is no limit.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from dtrain.comm.communicator import Array

PAGE_BYTES = mmap.PAGESIZE


@final
@dataclass(frozen=True)
class Shared:
    """`windows[i]` is rank i's memory, as bytes; `fd` is the file behind this rank's own."""

    windows: list[Array]
    fd: int


def share(allgather: Callable[[object], list[Any]], nbytes: int) -> Shared | str:
    """One zeroed window of `nbytes` per rank, or why this machine cannot do it.

    Collective over the ranks of one machine, through their `allgather` of objects; all get windows or none.
    """
    if sys.platform != "linux":
        return f"shared windows need Linux, this is {sys.platform}"
    fd = os.memfd_create("dtrain")
    os.ftruncate(fd, -(-max(nbytes, 1) // PAGE_BYTES) * PAGE_BYTES)
    owners = allgather((os.getpid(), fd, os.fstat(fd).st_ino))
    try:
        windows, fault = [_open(pid, number, inode, nbytes) for pid, number, inode in owners], ""
    except OSError as error:
        windows, fault = [], str(error)
    faults = [text for text in allgather(fault) if text]
    if faults:
        os.close(fd)
        return str(faults[0])
    return Shared(windows, fd)


def _open(pid: int, fd: int, inode: int, nbytes: int) -> Array:
    path = f"/proc/{pid}/fd/{fd}"
    opened = os.open(path, os.O_RDWR)
    try:
        if os.fstat(opened).st_ino != inode:  # another container's process numbers
            raise OSError(f"{path} is not the window of the rank that told of it")
        memory = mmap.mmap(opened, 0)
    finally:
        os.close(opened)
    if sys.platform == "linux":
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8, nbytes)


def fence() -> None:
    """Make this process's earlier stores visible to the others before its later ones.

    Taking a lock acquires and giving it back releases: two locks in a row let nothing pass, on ARM too.
    """
    for _ in range(2):
        with threading.Lock():
            pass
