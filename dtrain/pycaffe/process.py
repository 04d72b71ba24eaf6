"""What Caffe keeps once a process: mode, device, random numbers, ranks and the log.

Nets and solvers read it when they are built, so that a later call changes only those that come after.
"""

from __future__ import annotations

import atexit
import functools
import logging
import sys
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, final

import numpy as np

from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import connect
from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers import known_types
from dtrain.metrics.log import AttachedHandler, GlogFormatter

LOGGER: Final = "dtrain"
LEVELS: Final = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # glog's 0 to 3


@final
@dataclass
class Process:
    """`solver_count` 0 is as many as the launcher has started."""

    device: int = 0
    is_gpu: bool = False
    gpu: Backend | None = None  # one for all nets, since a thread works on one card
    gpu_number: int = 0
    solver_count: int = 0
    solver_rank: int = 0
    multiprocess: bool = False
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    handler: AttachedHandler | None = None
    joined: Communicator | None = None


@functools.cache
def process() -> Process:
    """The one record of this process."""
    return Process()


# -- where to compute


def set_mode_cpu() -> None:
    """Build on the CPU from now on, which is so from the start."""
    process().is_gpu = False


def set_mode_gpu() -> None:
    """Build on the GPU from now on. Raises BackendError where none can be used."""
    try:
        cupy_device.count()
    except BackendError as error:
        raise BackendError(
            f"set_mode_gpu: GPU {process().device} must be usable, got none: {error}; call set_mode_cpu()"
        ) from None
    process().is_gpu = True


def set_device(device_id: int) -> None:
    """The GPU that is meant by set_mode_gpu; once a net is built there it is the process's only one."""
    process().device = int(device_id)


def backend() -> Backend:
    """A device to build on; ranks that train together share the cores of their machine.

    Raises BackendError for a GPU that is not there, and for a second one.
    """
    here = process()
    if here.is_gpu:
        if here.gpu is None:
            here.gpu = CudaBackend(cupy_device.CupyDevice(here.device))
            here.gpu_number = here.device
        if here.gpu_number != here.device:
            raise BackendError(
                f"set_device: all nets of a process must be on one GPU, got {here.device} after a net on "
                f"{here.gpu_number}; start another process for the other GPU"
            )
        return here.gpu
    joined = here.joined
    return CpuBackend(num_threads=joined.threads if joined is not None and joined.size > 1 else None)


# -- random numbers


def set_random_seed(seed: int) -> None:
    """Nets and solvers built from now on draw the same numbers in every run of the program."""
    process().rng = np.random.default_rng(int(seed))


def next_seed() -> int:
    """The seed of the next net."""
    return int(process().rng.integers(1 << 31))


# -- ranks


def communicator() -> Communicator:
    """All processes that the launcher has started, or this one alone; connected when first asked for.

    From then on a script that fails on one rank ends all ranks. Raises ConfigError where the script has
    announced another number of solvers.
    """
    here = process()
    if here.joined is None:
        here.joined = connect()
        if here.joined.size > 1:
            _end_together(here.joined)
    if here.solver_count not in (0, here.joined.size):
        raise ConfigError(
            f"set_solver_count: the number of solvers must be that of the processes ({here.joined.size}), "
            f"got {here.solver_count}; start the script with mpirun -n {here.solver_count}"
        )
    return here.joined


def _end_together(comm: Communicator) -> None:
    """Close at the end of the script, and end the others where it has no good end."""
    former = sys.excepthook

    def fail(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        former(kind, error, trace)
        comm.close(failed=True)

    sys.excepthook = fail
    atexit.register(comm.close)


def solver_count() -> int:
    """How many processes train together."""
    here = process()
    return here.solver_count or (here.joined.size if here.joined is not None else 1)


def set_solver_count(count: int) -> None:
    """Announce the number of processes, which must be what mpirun has started."""
    process().solver_count = int(count)


def solver_rank() -> int:
    """Which of them this is."""
    here = process()
    return here.joined.rank if here.joined is not None else here.solver_rank


def set_solver_rank(rank: int) -> None:
    """Kept for solver_rank; the launcher decides which rank a process is."""
    process().solver_rank = int(rank)


def set_multiprocess(multiprocess: bool) -> None:
    """Changes nothing: solvers that train together are processes always."""
    process().multiprocess = bool(multiprocess)


def has_nccl() -> bool:
    """Whether the class NCCL of Caffe's interface is there: no, mpirun connects the processes."""
    return False


# -- the log


def init_log(level: int = 0, stderr: bool = True) -> None:
    """Print lines of glog's severity `level` (0 INFO to 3 FATAL) and above, to stderr or not at all."""
    if not 0 <= level < len(LEVELS):
        raise ConfigError(f"init_log: level must be from 0 to {len(LEVELS) - 1}, got {level}")
    here = process()
    if here.handler is not None:
        here.handler.close()
    handler = logging.StreamHandler(sys.stderr) if stderr else logging.NullHandler()
    handler.setFormatter(GlogFormatter())
    here.handler = AttachedHandler(logging.getLogger(LOGGER), handler, LEVELS[level])


def log(text: str) -> None:
    """Print a line of severity INFO."""
    show_log()
    logging.getLogger(LOGGER).info("%s", text, stacklevel=2)


def show_log() -> None:
    """Print to stderr as Caffe does, unless the script has said where the log goes."""
    here = process()
    if here.handler is None and not logging.getLogger(LOGGER).hasHandlers():
        is_first = here.joined is None or here.joined.rank == 0
        init_log(0 if is_first else 1)


def layer_type_list() -> list[str]:
    """The names of all layer types."""
    return known_types()
