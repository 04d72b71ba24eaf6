"""How this process was started: alone, or as one of the ranks of a job; and the communicator for it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.comm.watch import ABORT_S, WARN_S
from dtrain.errors import CommError, ConfigError

# Innermost launcher first: an mpirun inside a Slurm job sets its own variables beside Slurm's.
SIZE_VARIABLES = (
    "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "PMI_SIZE",  # MPICH, Intel MPI, srun --mpi=pmi2
    "JSM_NAMESPACE_SIZE",  # jsrun
    "FLUX_JOB_SIZE",
    "SLURM_STEP_NUM_TASKS",  # srun
    "SLURM_NTASKS",
)
RANK_VARIABLES = ("PMIX_RANK", "PALS_RANKID", "PMI_RANK")  # launchers that tell a rank and no size


@final
@dataclass(frozen=True)
class Declared:
    """What the launcher said: `size` is 0 where it named only a rank."""

    variable: str
    size: int


def declared(environment: Mapping[str, str]) -> Declared | None:
    """The job that the environment says this process belongs to; None when nothing launched it."""
    for variable in SIZE_VARIABLES:
        if environment.get(variable):
            return Declared(variable, int(_number(environment, variable, 1)))
    for variable in RANK_VARIABLES:
        if environment.get(variable):
            return Declared(variable, 0)
    return None


def check_size(job: Declared, mpi_size: int) -> None:
    """Refuse a job whose processes do not find each other: each would train alone into the same files."""
    if job.size not in (0, mpi_size):
        raise CommError(
            f"environment: {job.variable} must be the number of MPI ranks ({mpi_size}), got {job.size}; "
            f"the launcher and the MPI library do not belong together: start the job with the mpirun of the "
            f"installed MPI, or with srun --mpi=pmi2 or pmix as that MPI was built, and to run one process "
            f"unset {job.variable}"
        )


def connect() -> Communicator:
    """The communicator for how this process was started.

    Reads the launcher's variables, and the stall watch's DTRAIN_STALL_WARN_S and DTRAIN_STALL_ABORT_S.
    """
    warn_s = _number(os.environ, "DTRAIN_STALL_WARN_S", WARN_S)
    abort_s = _number(os.environ, "DTRAIN_STALL_ABORT_S", ABORT_S)
    job = declared(os.environ)
    if job is None or job.size == 1:
        return SingleCommunicator()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        raise CommError(
            f"environment: {job.variable} says that this is an MPI job; mpi4py and an MPI must be there, got "
            f"{error}; pip install 'dtrain[mpi]'"
        ) from error
    check_size(job, MPI.COMM_WORLD.size)

    from dtrain.comm.mpi import MpiCommunicator

    return MpiCommunicator(warn_s=warn_s, abort_s=abort_s)


def describe(comm: Communicator) -> list[str]:
    """One line a rank: where it runs, for the start of a log. Collective."""
    line = f"rank {comm.rank} of {comm.size} on {platform.node()}, pid {os.getpid()}, cores {comm.threads}"
    return [str(other) for other in comm.allgather_object(line)]


def _number(environment: Mapping[str, str], variable: str, default: float) -> float:
    text = environment.get(variable, "")
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ConfigError(f'environment: {variable} must be a number above 0, got "{text}"')
    return value
