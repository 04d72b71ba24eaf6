"""Milliseconds of a training step on several ranks, with the gradients summed and without.

    python -m benchmarks.ranks [NET ...] [--ranks 2] [--rounds 10]

Both solvers run on every rank, on the same cores, in turns; `alone` never talks to another rank. The ratio
is the step with allreduce over the step without: 1 means that the exchange is hidden behind backward.
`exposed` is how long a step waited for sums that backward had not hidden.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

from benchmarks.dtrain_worker import make_solver
from benchmarks.train_step import CASES, Case
from dtrain.comm.communicator import Communicator
from dtrain.comm.launcher import connect, declared
from dtrain.comm.single import SingleCommunicator


def step_ms(net: str, case: Case, comm: Communicator, rounds: int) -> tuple[float, float, float]:
    """Median milliseconds of (a step alone, a step with allreduce, its exposed wait), slowest rank each."""
    alone = make_solver(net, list(case.shape), case.classes, comm.threads, SingleCommunicator())
    together = make_solver(net, list(case.shape), case.classes, comm.threads, comm)
    times: dict[str, list[float]] = {"alone": [], "together": [], "exposed": []}
    for number in range(rounds + 1):
        for name, solver in (("alone", alone), ("together", together)):
            comm.barrier()
            begin = time.perf_counter()
            waited = together.exposed_s
            solver.step(case.steps)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - begin) / case.steps)
                if name == "together":
                    times["exposed"].append((together.exposed_s - waited) / case.steps)
    mine = [statistics.median(times[name]) * 1e3 for name in ("alone", "together", "exposed")]
    every = comm.allgather_object(mine)
    alone_ms, together_ms, exposed_ms = (max(column) for column in zip(*every, strict=True))
    return alone_ms, together_ms, exposed_ms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "nets", nargs="*", default=[], metavar="NET", help=f"of {', '.join(CASES)}; default all"
    )
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    if declared(os.environ) is None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        mpirun = shutil.which("mpirun", path=path) or sys.exit("no mpirun: pip install 'dtrain[mpi]'")
        again = [sys.executable, "-m", "benchmarks.ranks", *sys.argv[1:]]
        os.execv(mpirun, [mpirun, "-n", str(given.ranks), *again])
    comm = connect()
    if comm.rank == 0:
        print(
            f"{'net':16} {'batch':>5} {'ranks':>5} {'alone':>10} {'together':>10} {'exposed':>9} {'ratio':>6}"
        )
    for net in given.nets or CASES:
        case = CASES[net]
        alone, together, exposed = step_ms(net, case, comm, given.rounds)
        if comm.rank == 0:
            print(
                f"{net:16} {case.shape[0]:5} {comm.size:5} {alone:7.2f} ms {together:7.2f} ms "
                f"{exposed:6.2f} ms {together / alone:6.2f}",
                flush=True,
            )
    comm.close()


if __name__ == "__main__":
    main()
