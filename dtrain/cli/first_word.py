"""Of the ranks of a machine that fail on their own, the first alone says why.

One fault in the data often strikes several ranks within milliseconds, before the first has ended the job.
"""

from __future__ import annotations

import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from dtrain.comm.abort import AgreedError
from dtrain.comm.communicator import Communicator


@final
class FirstWord:
    """A file without a name that the ranks of one machine share; its first byte is the word. Collective."""

    def __init__(self, comm: Communicator) -> None:
        node = platform.node()
        own, path = tempfile.mkstemp(prefix="dtrain-") if comm.local_rank == 0 else (-1, "")
        (shared,) = [path for where, path in comm.allgather_object((node, path)) if where == node and path]
        self._file = own if path else os.open(shared, os.O_RDWR)
        comm.barrier()
        if path:
            os.unlink(path)

    def take(self) -> bool:
        """Whether no rank of this machine has taken the word before."""
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            is_first = not os.pread(self._file, 1, 0)
            os.pwrite(self._file, b"x", 0)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
        return is_first

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def speaking_once(comm: Communicator) -> Iterator[None]:
    """Run a body; where its error is not this machine's first, end the job without a word. Collective."""
    if comm.size == 1:
        yield
        return
    word = FirstWord(comm)
    try:
        yield
    except (AgreedError, SystemExit):
        raise
    except BaseException:
        if not word.take():
            comm.close(failed=True)
        raise
    finally:
        word.close()
