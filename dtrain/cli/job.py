"""What surrounds a run on every rank: its communicator, its log, its metrics, and how it ends.

A fault of the input mostly strikes all ranks alike. Where ranks build what they need, `agreed` makes it one
error that one rank tells; a fault while they run strikes when it will, and ends the job under its rank's
name.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from dtrain.cli.first_word import speaking_once
from dtrain.comm.abort import AgreedError, agree, ending_together
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import connect, declared
from dtrain.errors import ConfigError, DtrainError
from dtrain.metrics.progress import Show, open_reporter
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Reporter
from dtrain.net import Net

INPUT_LOGGER = "dtrain.proto"  # warns of what a file holds, which is the same on every rank


@final
@dataclass(frozen=True, kw_only=True)
class Telling:
    """Where a run tells of itself."""

    show: Show = Show.AUTO
    log_json: Path | None = None
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    metrics_textfile: Path | None = None


@final
@dataclass(frozen=True)
class Job:
    """One rank's part of a run."""

    comm: Communicator
    reporter: Reporter
    recorder: Recorder


def offer_python_layers() -> None:
    """Let Python layers import caffe, which dtrain's face answers, and modules of the working directory."""
    importlib.import_module("dtrain.pycaffe")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)


@contextmanager
def open_job(telling: Telling) -> Iterator[Job]:
    """Connect the ranks and open log and metrics; a fault on any rank ends all of them, told once."""
    comm = connect()
    with ExitStack() as stack:
        stack.enter_context(ending_together(comm))
        stack.enter_context(speaking_once(comm))
        offer_python_layers()
        recorder = Recorder()
        with agreed(comm):
            reporter = open_reporter(
                sys.stderr,
                rank=comm.rank,
                show=telling.show,
                log_json=telling.log_json,
                recorder=recorder,
            )
            stack.callback(reporter.close)
            stack.callback(_tell_input_once(comm.rank))
            if telling.metrics_port is not None:
                from dtrain.metrics.prometheus import MetricsServer  # 50 ms that most runs do not need

                server = MetricsServer(
                    recorder,
                    telling.metrics_port,
                    host=telling.metrics_host,
                    rank=comm.rank,
                    local_rank=comm.local_rank,
                )
                stack.callback(server.close)
            if telling.metrics_textfile is not None:
                from dtrain.metrics.prometheus import TextfileWriter

                writer = TextfileWriter(recorder, telling.metrics_textfile, rank=comm.rank)
                stack.callback(writer.close)
        yield Job(comm, reporter, recorder)
    comm.close()


def _tell_input_once(rank: int) -> Callable[[], None]:
    """Leave warnings about input files to rank 0; call the result to undo it."""
    logger = logging.getLogger(INPUT_LOGGER)
    former = logger.level
    logger.setLevel(logging.ERROR if rank else former)
    return lambda: logger.setLevel(former)


@contextmanager
def agreed(comm: Communicator) -> Iterator[None]:
    """Run a body whose DtrainError on any rank is raised on all of them. Collective.

    A body may call collectives if nothing in it can fail between a `meet` and the collectives behind it.
    """
    fault: DtrainError | None = None
    try:
        yield
    except AgreedError:
        raise
    except DtrainError as error:
        fault = error
    agree(comm, fault)


def meeting(comm: Communicator, plan: Callable[[Net], None] | None) -> Callable[[Net], None]:
    """The plan of a net that is built in an `agreed` body.

    A net calls its plan behind everything in its prototxt that can be wrong and before its first collective;
    a rank that has failed by then waits at the end of the body, and here the others meet it.
    """

    def meet(net: Net) -> None:
        agree(comm, None)
        if plan is not None:
            plan(net)

    return meet


def refuse_ranks(command: str) -> None:
    """Raise where several processes were started for what one does."""
    job = declared(os.environ)
    if job is not None and job.size > 1:
        raise ConfigError(
            f"environment: {job.variable} must be 1 for dtrain {command}, which one process does, "
            f"got {job.size}; start it without mpirun"
        )
