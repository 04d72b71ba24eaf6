"""Ending together: a failure on one rank ends every rank, and is told once.

Without this, ranks whose peer has raised wait for it in their next collective.
"""

from __future__ import annotations

import platform
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never, final

from dtrain.comm.communicator import Communicator
from dtrain.comm.watch import say
from dtrain.errors import CommError, DtrainError


@final
class AgreedError(CommError):
    """An error that is raised on every rank; `speaker` is the rank that tells it."""

    def __init__(self, message: str, speaker: int) -> None:
        super().__init__(message)
        self.speaker = speaker

    def __reduce__(self) -> tuple[type[AgreedError], tuple[str, int]]:
        return AgreedError, (str(self), self.speaker)


def agree(comm: Communicator, error: DtrainError | None, *, one_acts: bool = False) -> None:
    """Raise on every rank when any rank has an error. Collective.

    For faults of the input, such as a missing file, that usually strike all ranks alike: `ending_together`
    prints the first rank's error once, with the ranks named unless it is the same everywhere. With
    `one_acts` a single rank did something for all, such as reading a file, and its number says nothing.
    """
    texts = comm.allgather_object(None if error is None else str(error))
    failed = [rank for rank, text in enumerate(texts) if text is not None]
    if not failed:
        return
    if comm.size == 1 and error is not None:
        raise error
    speaker = failed[0]
    everywhere = one_acts or all(text == texts[0] for text in texts)
    where = "" if everywhere else f"rank {speaker} (of ranks {', '.join(map(str, failed))} that failed): "
    raise AgreedError(f"{where}{texts[speaker]}", speaker) from error


@contextmanager
def ending_together(comm: Communicator) -> Iterator[None]:
    """Run a body whose uncaught error, in a thread too, is printed under this rank's name and ends all ranks.

    A DtrainError is one line, anything else a traceback. A group of one raises as usual.
    """
    if comm.size == 1:
        yield
        return

    def in_thread(failure: threading.ExceptHookArgs) -> None:
        if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
            _end(comm, failure.exc_value)

    previous = threading.excepthook
    threading.excepthook = in_thread
    try:
        yield
    except SystemExit as leaving:
        if leaving.code not in (None, 0):
            _end(comm, leaving)
        raise
    except AgreedError as error:
        if comm.rank == error.speaker:
            say(f"error: {error}")
        comm.barrier()
        comm.close()
        sys.exit(1)
    except BaseException as error:
        _end(comm, error)
    finally:
        threading.excepthook = previous


def failure_text(comm: Communicator, error: BaseException) -> str:
    """The error as the rank that met it tells it: one line for a DtrainError, else its traceback."""
    where = f"rank {comm.rank} on {platform.node()}"
    if isinstance(error, DtrainError):
        return f"error: {where}: {error}"
    if isinstance(error, KeyboardInterrupt):
        return f"{where}: interrupted"
    if isinstance(error, SystemExit):
        return f"{where}: exit with status {error.code}"
    lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
    return "\n".join(f"{where}: {line}" for line in lines)


def _end(comm: Communicator, error: BaseException) -> Never:
    say(failure_text(comm, error))
    comm.close(failed=True)
    raise AssertionError("a failed communicator ends the process")
