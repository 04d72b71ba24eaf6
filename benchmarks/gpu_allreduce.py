"""Bus bandwidth of gradients summed between cards: dtrain's buckets against NCCL's sum of the whole buffer.

    python -m benchmarks.gpu_allreduce [--ranks N] [--rounds 9]

A rank a card. The bus bandwidth of n ranks is 2 (n - 1) / n times the bytes over the seconds, which is what
every card's links carry whatever n is (Source: NCCL's tests). The two take turns on one buffer; a time is the
median over the rounds of the slowest rank, by events. With one card there is nothing to measure; with
DTRAIN_SHARE_CARDS=1 in the environment two ranks share it and only the sums are checked.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dtrain.comm.cupy_lane import CupyLane
from dtrain.comm.launcher import connect, declared
from dtrain.comm.mpi import MpiCommunicator
from dtrain.comm.nccl import NcclCommunicator, load, share_cards, version_text
from dtrain.comm.reducer import Reducer
from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device

SHARE = "DTRAIN_SHARE_CARDS"
COUNTS = [
    1_000_000,
    13_378_280,
    25_557_096,
    60_965_224,
    250_000_000,
]  # GoogLeNet, ResNet-50, CaffeNet in between
PARAMETER = 262_144  # elements of one of the parameters that the buckets are made of
REPEATS = 5


def bus_bytes_per_s(nbytes: int, seconds: float, ranks: int) -> float:
    """What a card's links carry for a sum of so many bytes over so many ranks."""
    return 2 * (ranks - 1) / ranks * nbytes / seconds


def slices_of(count: int, each: int = PARAMETER) -> list[tuple[int, int]]:
    """A flat buffer as parameters of equal size, the last one smaller."""
    return [(start, min(start + each, count)) for start in range(0, count, each)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, help="default one a card")
    parser.add_argument("--rounds", type=int, default=9, help="a size (default 9)")
    given = parser.parse_args()
    shares = os.environ.get(SHARE) == "1"
    if declared(os.environ) is not None:
        measure(given.rounds, shares)
        return
    try:
        cards = cupy_device.count()
    except BackendError as error:
        sys.exit(f"not measured: {error}")
    ranks = given.ranks or (2 if shares else cards)
    if ranks < 2 or (ranks > cards and not shares):
        sys.exit(
            f"not measured: {max(ranks, 2)} ranks need as many cards, this machine has {cards}; "
            f"{SHARE}=1 lets ranks share a card to check the sums"
        )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    mpirun = shutil.which("mpirun", path=path) or sys.exit("no mpirun: pip install 'dtrain[mpi]'")
    again = [sys.executable, "-m", "benchmarks.gpu_allreduce", *sys.argv[1:]]
    os.execv(mpirun, [mpirun, "-n", str(ranks), *again])


def measure(rounds: int, shares: bool) -> None:
    """This rank's part."""
    inner = connect()
    if not isinstance(inner, MpiCommunicator):
        sys.exit("not measured: at least 2 ranks are needed, got 1")
    nccl = load()
    if shares:
        share_cards(nccl, inner.rank)
    cupy: Any = importlib.import_module("cupy")
    cupy.cuda.Device(inner.local_rank % cupy_device.count()).use()
    cupy.cuda.Stream(non_blocking=True).use()
    comm = NcclCommunicator(inner, CupyLane(), nccl)
    number = inner.allgather_object(nccl.get_unique_id() if inner.rank == 0 else None)[0]
    raw = nccl.NcclCommunicator(inner.size, number, inner.rank)
    about = f"bus GB/s, {inner.size} ranks, NCCL {version_text(nccl)}"
    if shares:
        about += ", one card shared: the sums are checked, the times mean nothing"
    lines = [f"{'float32':>12} {'NCCL':>12} {'dtrain':>12} {'ratio':>6}   {about}"]
    for count in COUNTS[:2] if shares else COUNTS:
        theirs, ours = seconds_of(comm, raw, cupy, count, rounds)
        peer, mine = (bus_bytes_per_s(4 * count, seconds, inner.size) / 1e9 for seconds in (theirs, ours))
        lines.append(f"{count:>12,} {peer:>12.1f} {mine:>12.1f} {mine / peer:>6.2f}")
    if inner.rank == 0:
        print("\n".join(lines), flush=True)
    raw.destroy()
    comm.close()


def seconds_of(comm: NcclCommunicator, raw: Any, cupy: Any, count: int, rounds: int) -> tuple[float, float]:
    """(NCCL's, dtrain's) of one sum."""
    buffer = cupy.empty(count, np.float32)
    slices = slices_of(count)
    reducer = Reducer(comm, buffer, slices)
    stream = cupy.cuda.get_current_stream()
    nccl = load()

    def whole() -> None:
        address = buffer.data.ptr
        raw.allReduce(address, address, count, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, stream.ptr)

    def bucketed() -> None:
        for i in range(len(slices)):
            reducer.ready(i)
        reducer.finish()

    ways: list[Callable[[], None]] = [whole, bucketed]
    times: list[list[float]] = [[], []]
    expected = float(sum(range(1, comm.size + 1)))
    for _ in range(rounds + 1):
        for way, taken in zip(ways, times, strict=True):
            buffer.fill(comm.rank + 1)
            way()
            if not bool((buffer == expected).all()):
                raise SystemExit(f"rank {comm.rank}: {way.__name__}: a sum of {count} must be {expected}")
            buffer.fill(0)
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            comm.barrier()
            begin.record()
            for _ in range(REPEATS):
                way()
            end.record()
            end.synchronize()
            own = cupy.cuda.get_elapsed_time(begin, end) / 1e3 / REPEATS
            taken.append(max(comm.allgather_object(own)))
    theirs, ours = (statistics.median(taken[1:]) for taken in times)
    return theirs, ours


if __name__ == "__main__":
    main()
