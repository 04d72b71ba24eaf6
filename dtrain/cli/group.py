"""What sums the gradients of ranks that compute on cards: NCCL, or MPI through host memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from dtrain.cli.cards import shares_cards
from dtrain.cli.job import Job, agreed
from dtrain.comm import nccl
from dtrain.comm.abort import AgreedError
from dtrain.comm.compression import FORMATS, Compression
from dtrain.comm.cupy_lane import CupyLane
from dtrain.comm.staged import StagedCommunicator
from dtrain.errors import ConfigError, unknown_name
from dtrain.kernels.backend import Backend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import ValueType

logger = logging.getLogger(__name__)

AUTO, NCCL, MPI = COMMS = ("auto", "nccl", "mpi")
NONE = "none"
VALUES = {"fp16": ValueType.FLOAT16, "bf16": ValueType.BFLOAT16}


@contextmanager
def on_device(job: Job, backend: Backend, how: str = AUTO, compress: str = NONE) -> Iterator[Job]:
    """The job with a communicator that sums the backend's arrays. Collective.

    `how` is one of COMMS, auto being NCCL between cards; compress is none, fp16 or bf16. Raises ConfigError,
    and CommError where NCCL is missing or does not start: nothing else takes its place unasked.
    """
    with agreed(job.comm):
        check(backend, how, compress)
        uses_nccl = isinstance(backend, CudaBackend) and job.comm.size > 1 and how != MPI
        library = nccl.load() if uses_nccl else None
        share = shares_cards()
    if not isinstance(backend, CudaBackend) or job.comm.size == 1:
        yield job
        return
    compression = compression_of(backend, compress)
    told = "" if compression is None else f" as {compress}"
    if library is None:
        logger.info("Gradients are summed by MPI in host memory%s", told and f", on their way there{told}")
        yield replace(job, comm=StagedCommunicator(job.comm, CupyLane(), compression))
        return
    if share:
        nccl.share_cards(library, job.comm.rank)
    group = joined(job, library, compression)
    logger.info("Gradients are summed by NCCL %s%s", nccl.version_text(library), told)
    try:
        yield replace(job, comm=group)
    except (AgreedError, SystemExit):
        group.give_up()  # Python goes on to its end, where NCCL would wait for what is under way
        raise
    group.leave()


def joined(job: Job, library: Any, compression: Compression | None) -> nccl.NcclCommunicator:
    """All ranks' communicator on the calling thread's card. Collective."""
    from dtrain.comm.mpi import MpiCommunicator  # starts MPI

    assert isinstance(job.comm, MpiCommunicator), "several ranks are joined by MPI"
    return nccl.NcclCommunicator(job.comm, CupyLane(), library, compression)


def check(backend: Backend, how: str, compress: str) -> None:
    """Raise ConfigError for values that are no choice, or none with this backend."""
    if how not in COMMS:
        raise ConfigError(f"--comm: {unknown_name('communicator', how, COMMS)}")
    if compress not in (NONE, *FORMATS):
        raise ConfigError(f"--compress: {unknown_name('compression', compress, (NONE, *FORMATS))}")
    if isinstance(backend, CudaBackend):
        return
    if how == NCCL:
        raise ConfigError("--comm must be auto or mpi on the CPU, got nccl; pass -gpu all to compute on GPUs")
    if compress != NONE:
        raise ConfigError(
            f"--compress must be none on the CPU, where gradients are summed in float32, got {compress}; "
            f"pass -gpu all to compute on GPUs"
        )


def compression_of(backend: CudaBackend, compress: str) -> Compression | None:
    """The backend's casts to a 16-bit type and back."""
    if compress == NONE:
        return None
    values = VALUES[compress]

    def empty(count: int) -> Any:
        return backend.empty(count, np.uint16)

    def cast(source: Any, target: Any, scale: float) -> None:
        backend.card.cast(source, target, values, scale)

    return Compression(compress, empty, narrow=cast, widen=cast)
