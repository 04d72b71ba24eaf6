"""Which device a run computes on, from the flags and the solver's solver_mode."""

from __future__ import annotations

import ctypes
import logging

from dtrain.comm.communicator import Communicator
from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
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
) -> Backend:
    """The flags win over solver_mode; an explicit GPU that cannot be had is an error, never a CPU run."""
    if gpu is not None and cpu:
        raise ConfigError("command line: at most one of -gpu and -cpu must be given, got both")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    number = None if cpu else card_of(settings, comm, gpu)
    backend: Backend
    if number is None:
        backend = CpuBackend(num_threads=threads or comm.threads, engine=engine)
    else:
        backend = CudaBackend(cupy_device.CupyDevice(number), engine=engine)
    logger.info("Computing on %s", backend.describe())
    return backend


def card_of(settings: Settings | None, comm: Communicator, gpu: str | None) -> int | None:
    """This rank's card, or None for the CPU; with neither flag nor solver_mode a card where one is usable."""
    if gpu is not None:
        return _own(_cards(gpu, f"-gpu {gpu}"), comm, f"-gpu {gpu}")
    if settings is None:
        return None
    param = settings.param
    if param.HasField("solver_mode"):
        if param.solver_mode != pb.SolverParameter.GPU:
            return None
        told = f"{settings.where('solver_mode')}: solver_mode GPU"
        wanted = "all" if comm.local_size > 1 else str(param.device_id)
        return _own(_cards(wanted, told), comm, told)
    if not _has_driver():
        return None
    try:
        return _own(_cards("all", "solver_mode"), comm, "solver_mode")
    except BackendError as error:
        logger.warning("Computing on the CPU, since %s", error)
        return None


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


def _own(cards: list[int], comm: Communicator, told: str) -> int:
    """The card of this rank among those of its machine."""
    if comm.local_size > len(cards):
        raise BackendError(
            f"{told}: there must be a card for each of the {comm.local_size} ranks of this machine, got "
            f"{len(cards)}; start fewer ranks, or name more cards"
        )
    if comm.size > 1:
        raise BackendError(
            f"{told}: the number of ranks must be 1 on GPUs, since this version sums gradients on CPUs only, "
            f"got {comm.size}; pass -cpu"
        )
    return cards[comm.local_rank]


def _has_driver() -> bool:
    """Whether NVIDIA's driver is installed, told without CuPy."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def no_gpu() -> str:
    """Why no GPU can be used, and what to do; empty where one can."""
    try:
        cupy_device.count()
    except BackendError as error:
        return f"a GPU must be usable, got none: {error}"
    return ""
