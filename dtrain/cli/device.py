"""Which device a run computes on, from the flags and the solver's solver_mode."""

from __future__ import annotations

import ctypes
import logging
import platform
from dataclasses import replace

from dtrain.cli.cards import Choice, choice, own_card, shares_cards
from dtrain.comm.abort import agree
from dtrain.comm.communicator import Communicator
from dtrain.errors import BackendError, ConfigError, unknown_name
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import PRECISIONS, CudaBackend
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers.settings import Settings

logger = logging.getLogger(__name__)

DRIVER = "libcuda.so.1"


def choose_backend(
    settings: Settings | None,
    comm: Communicator,
    *,
    gpu: str | None,
    cpu: bool,
    threads: int | None,
    engine: str,
    precision: str = "",
    autotune: bool = False,
) -> Backend:
    """The flags win over solver_mode; an explicit GPU that cannot be had is an error, never a CPU run.

    precision: of layers that name none, whatever their net says; empty leaves it to the net; autotune: time
    the algorithms of a GPU's library. Collective.
    """
    if precision and precision not in PRECISIONS:
        raise ConfigError(f"--precision: {unknown_name('precision', precision, PRECISIONS)}")
    if gpu is not None and cpu:
        raise ConfigError("command line: at most one of -gpu and -cpu must be given, got both")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    mine = Choice(platform.node()) if cpu else choice_of(settings, comm, gpu)
    share = shares_cards()
    agree(comm, None)  # here ranks meet those whose choice is an error
    own, lines = own_card(comm, mine, share=share)
    for line in lines if comm.size > 1 else ():
        logger.info("%s", line)
    if mine.cards and own is None:
        logger.warning("Computing on the CPU, since the cards do not suffice for %d ranks", comm.size)
    backend: Backend
    if own is None:
        if precision not in ("", *CpuBackend.precisions):
            raise ConfigError(f"--precision must be fp32 on the CPU, got {precision}; pass -gpu 0")
        backend = CpuBackend(num_threads=threads or comm.threads, engine=engine)
    else:
        card = cupy_device.CupyDevice(own.number)
        backend = CudaBackend(card, engine=engine, precision=precision, autotune=autotune)
    logger.info("Computing on %s", backend.describe())
    return backend


def choice_of(settings: Settings | None, comm: Communicator, gpu: str | None) -> Choice:
    """What this rank may compute on; with neither flag nor solver_mode the cards where any are usable."""
    if gpu is not None:
        return choice(_cards(gpu, f"-gpu {gpu}"), f"-gpu {gpu}")
    nothing = Choice(platform.node())
    if settings is None:
        return nothing
    param = settings.param
    if param.HasField("solver_mode"):
        if param.solver_mode != pb.SolverParameter.GPU:
            return nothing
        told = f"{settings.where('solver_mode')}: solver_mode GPU"
        wanted = "all" if comm.local_size > 1 else str(param.device_id)
        return choice(_cards(wanted, told), told)
    if not _has_driver():
        return replace(nothing, is_free=True)
    try:
        return choice(_cards("all", "solver_mode"), "solver_mode", is_free=True)
    except BackendError as error:
        logger.warning("Computing on the CPU, since %s", error)
        return replace(nothing, is_free=True)


def _cards(wanted: str, told: str) -> list[int]:
    """The cards that `0`, `0,1` or `all` names."""
    try:
        found = cupy_device.count()
    except BackendError as error:
        raise BackendError(f"{told}: a GPU must be usable, got none: {error}") from None
    if wanted == "all":
        return list(range(found))
    cards = [int(word) for word in wanted.split(",") if word.strip().isdecimal()]
    if len(cards) != wanted.count(",") + 1 or max(cards) >= found:
        raise BackendError(
            f"{told}: cards must be numbers in [0, {found}), such as 0 or 0,1, or all; got {wanted}"
        )
    return cards


def _has_driver() -> bool:
    """Whether NVIDIA's driver is installed, told without CuPy."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True
