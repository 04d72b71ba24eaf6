"""Sum of a gradient buffer inside a machine: dtrain's communicator against MPI_Allreduce of the same buffer.

    python -m benchmarks.allreduce [--ranks 2] [--rounds 9]

The two take turns on one buffer, in place; a time is the median over the rounds of the slowest rank.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from dtrain.comm.communicator import Array, Communicator
from dtrain.comm.launcher import declared

COUNTS = [1_000, 10_000, 100_000, 431_080, 2_000_000, 6_000_000, 60_000_000]  # 431,080: LeNet's parameters


def main() -> None:
    parser = argparse.ArgumentParser(description="in-machine allreduce against MPI_Allreduce")
    parser.add_argument("--ranks", type=int, default=2, help="ranks to start (default 2)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds a size (default 9)")
    arguments = parser.parse_args()
    if declared(os.environ) is None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mpirun = shutil.which("mpirun", path=path) or sys.exit("no mpirun: pip install 'dtrain[mpi]'")
        again = [sys.executable, "-m", "benchmarks.allreduce", *sys.argv[1:]]
        os.execv(mpirun, [mpirun, "-n", str(arguments.ranks), *again])
    measure(arguments.rounds)


def summed(comm: Communicator, buffer: Array) -> None:
    """dtrain's way."""
    comm.wait(comm.allreduce(buffer))


def measure(rounds: int) -> None:
    from mpi4py import MPI

    from dtrain.comm.mpi import MpiCommunicator

    comm = MpiCommunicator()
    lines = [f"{'float32':>12} {'MPI_Allreduce':>14} {'dtrain':>12} {'ratio':>7}   ({comm.size} ranks)"]
    for count in COUNTS:
        buffer = comm.allocate(count)
        ways: list[Callable[[], object]] = [
            partial(comm.world.Allreduce, MPI.IN_PLACE, buffer),
            partial(summed, comm, buffer),
        ]
        repeats = max(1, 200_000 // count)
        seconds: list[list[float]] = [[], []]
        for _ in range(rounds + 1):
            for way, times in zip(ways, seconds, strict=True):
                buffer[:] = comm.rank + 1
                comm.barrier()
                begin = time.perf_counter()
                for _ in range(repeats):
                    way()
                own = (time.perf_counter() - begin) / repeats
                times.append(comm.world.allreduce(own, MPI.MAX))
                if repeats == 1:
                    assert np.all(buffer == sum(range(1, comm.size + 1))), "a wrong sum is no speed"
        peer, ours = (statistics.median(times[1:]) for times in seconds)
        lines.append(f"{count:>12,} {peer * 1e3:>11.3f} ms {ours * 1e3:>9.3f} ms {peer / ours:>7.2f}")
    if comm.rank == 0:
        print("\n".join(lines), flush=True)
    comm.close()


if __name__ == "__main__":
    main()
