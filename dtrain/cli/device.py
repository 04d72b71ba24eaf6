"""Which device a run computes on, from the flags and the solver's solver_mode."""

from __future__ import annotations

import logging

from dtrain.comm.communicator import Communicator
from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers.settings import Settings

logger = logging.getLogger(__name__)


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
    if gpu is not None:
        raise BackendError(f"-gpu {gpu}: {no_gpu()}")
    if settings is not None and not cpu and _asks_for_gpu(settings):
        raise BackendError(f"{settings.where('solver_mode')}: solver_mode GPU: {no_gpu()}")
    if threads is not None and threads < 1:
        raise ConfigError(f"--threads must be at least 1, got {threads}")
    backend = CpuBackend(num_threads=threads or comm.threads, engine=engine)
    logger.info("Computing on %s", backend.describe())
    return backend


def _asks_for_gpu(settings: Settings) -> bool:
    """An unset solver_mode means a GPU only where one is usable."""
    param = settings.param
    return param.HasField("solver_mode") and param.solver_mode == pb.SolverParameter.GPU


def no_gpu() -> str:
    """Why no GPU can be used, and what to do."""
    return "a GPU must be usable, got none, since this version computes on CPUs only; pass -cpu"
