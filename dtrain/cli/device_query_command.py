"""`dtrain device_query`: what this machine has for training."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from dtrain.cli import options as o
from dtrain.cli.app import app
from dtrain.cli.device import choose_backend
from dtrain.cli.job import Telling, open_job
from dtrain.comm import nccl
from dtrain.comm.launcher import describe
from dtrain.errors import BackendError, CommError
from dtrain.kernels.cuda import stack
from dtrain.metrics.progress import Show

CPU_INFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia/gpus")


@app.command(name="device_query", short_help="Tell what this machine has.")
def device_query(
    gpu: Annotated[
        str | None, typer.Option("--gpu", metavar="IDS", help="GPUs to describe.", show_default=False)
    ] = None,
    cpu: o.Cpu = False,
) -> None:
    """Tell what this machine has: processor, cores, ranks, MPI, oneDNN, GPUs and their libraries."""
    with open_job(Telling(show=Show.OFF)) as job:
        backend = choose_backend(None, job.comm, gpu=gpu, cpu=cpu, threads=None, engine="DEFAULT")
        ranks = describe(job.comm)
        rows = [
            ("CPU", processor()),
            ("device", backend.describe()),
            *(("rank", line) for line in ranks),
            ("MPI", mpi()),
            *gpus(),
        ]
        if job.comm.rank == 0:
            width = max(len(name) for name, _ in rows) + 2
            typer.echo("\n".join(f"{name + ':':<{width}}{value}" for name, value in rows))


def processor() -> str:
    """The CPU's name, as the kernel knows it."""
    lines = CPU_INFO.read_text().splitlines() if CPU_INFO.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def mpi() -> str:
    """The MPI library behind mpi4py."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: mpi4py finds no MPI library
        return f"none ({error}); pip install 'dtrain[mpi]'"
    library = MPI.Get_library_version().split("\n")[0].replace("\t", " ").strip("\0 ")
    return f"{' '.join(library.split())}, mpi4py {metadata.version('mpi4py')}"


def gpus() -> list[tuple[str, str]]:
    """GPUs of this machine, whether they can be used, and by which libraries."""
    try:
        cards = [("GPU", told) for told in stack.cards()]
    except BackendError as error:
        found = len(list(NVIDIA.iterdir())) if NVIDIA.is_dir() else 0
        if not found:
            return [("GPU", "none; on a machine with one `nvidia-smi` lists it")]
        cards = [("GPU", f"{found} of NVIDIA that cannot be used: {error}")]
    return [*cards, *stack.libraries(), ("NCCL", nccl_version())]


def nccl_version() -> str:
    """Of the library that sums gradients between GPUs, or how to install it."""
    try:
        return nccl.version_text(nccl.load())
    except CommError as error:
        return str(error).removeprefix("NCCL: ")
