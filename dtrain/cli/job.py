"""What surrounds a run on every rank: its communicator, its log, its metrics, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from dtrain.comm.abort import agree, ending_together
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import connect
from dtrain.errors import DtrainError
from dtrain.metrics.progress import Show, open_reporter
from dtrain.metrics.prometheus import MetricsServer, TextfileWriter
from dtrain.metrics.recorder import Recorder
from dtrain.metrics.reporter import Reporter


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


@contextmanager
def open_job(telling: Telling) -> Iterator[Job]:
    """Connect the ranks and open log and metrics; a fault on any rank ends all of them, told once."""
    comm = connect()
    with ExitStack() as stack:
        stack.callback(comm.close)
        stack.enter_context(ending_together(comm))
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
            if telling.metrics_port is not None:
                server = MetricsServer(
                    recorder,
                    telling.metrics_port,
                    host=telling.metrics_host,
                    rank=comm.rank,
                    local_rank=comm.local_rank,
                )
                stack.callback(server.close)
            if telling.metrics_textfile is not None:
                writer = TextfileWriter(recorder, telling.metrics_textfile, rank=comm.rank)
                stack.callback(writer.close)
        yield Job(comm, reporter, recorder)


@contextmanager
def agreed(comm: Communicator) -> Iterator[None]:
    """Run a body in which no collective is called; its DtrainError on any rank is raised on all."""
    fault: DtrainError | None = None
    try:
        yield
    except DtrainError as error:
        fault = error
    agree(comm, fault)
