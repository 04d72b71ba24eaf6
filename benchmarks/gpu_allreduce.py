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
from functools import partial
from pathlib import Path
from typing import Any, Protocol, final

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


class Card(Protocol):
    """What a round asks of this rank's card."""

    def empty(self, count: int) -> Any:
        """Float32 on the card."""

    def fill(self, buffer: Any, value: float) -> None:
        """Every element, behind what is queued."""

    def holds(self, buffer: Any, value: float) -> bool:
        """Whether every element is that, when all that is queued is done."""

    def seconds(self, work: Callable[[], None]) -> float:
        """That the card takes for what `work` queues."""


@final
class CupyCard:
    """The thread's current card and stream."""

    def __init__(self) -> None:
        self._cupy: Any = importlib.import_module("cupy")

    def empty(self, count: int) -> Any:
        return self._cupy.empty(count, np.float32)

    def fill(self, buffer: Any, value: float) -> None:
        buffer.fill(value)

    def holds(self, buffer: Any, value: float) -> bool:
        return bool((buffer == value).all())

    def seconds(self, work: Callable[[], None]) -> float:
        begin, end = self._cupy.cuda.Event(), self._cupy.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1e3


def measure(rounds: int, shares: bool) -> None:
    """This rank's part."""
    inner = connect()
    if not isinstance(inner, MpiCommunicator):
        sys.exit("not measured: at least 2 ranks are needed, got 1")
    nccl = load()
    if shares:
        share_cards(nccl, inner.rank)
    cuda: Any = importlib.import_module("cupy").cuda
    cuda.Device(inner.local_rank % cupy_device.count()).use()
    cuda.Stream(non_blocking=True).use()
    comm = NcclCommunicator(inner, CupyLane(), nccl)
    number = inner.allgather_object(nccl.get_unique_id() if inner.rank == 0 else None)[0]
    raw = nccl.NcclCommunicator(inner.size, number, inner.rank)
    about = f"bus GB/s, {inner.size} ranks, NCCL {version_text(nccl)}"
    if shares:
        about += ", one card shared: the sums are checked, the times mean nothing"
    lines = [f"{'float32':>12} {'NCCL':>12} {'dtrain':>12} {'ratio':>6}   {about}"]
    for count in COUNTS[:2] if shares else COUNTS:
        theirs, ours = seconds_of(comm, raw, nccl, CupyCard(), count, rounds)
        peer, mine = (bus_bytes_per_s(4 * count, seconds, inner.size) / 1e9 for seconds in (theirs, ours))
        lines.append(f"{count:>12,} {peer:>12.1f} {mine:>12.1f} {mine / peer:>6.2f}")
    if inner.rank == 0:
        print("\n".join(lines), flush=True)
    raw.destroy()
    comm.close()


def seconds_of(
    comm: NcclCommunicator, raw: Any, nccl: Any, card: Card, count: int, rounds: int
) -> tuple[float, float]:
    """(NCCL's, dtrain's) of one sum; `raw` is CuPy's communicator. Ends the program where a sum is wrong."""
    buffer = card.empty(count)
    slices = slices_of(count)
    reducer = Reducer(comm, buffer, slices)
    address, stream = comm.lane.address(buffer), comm.lane.compute.ptr

    def whole() -> None:
        raw.allReduce(address, address, count, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, stream)

    def bucketed() -> None:
        for i in range(len(slices)):
            reducer.ready(i)
        reducer.finish()

    def repeated(way: Callable[[], None]) -> None:
        for _ in range(REPEATS):
            way()

    ways = {"NCCL": whole, "dtrain": bucketed}
    times: dict[str, list[float]] = {name: [] for name in ways}
    expected = float(sum(range(1, comm.size + 1)))
    for _ in range(rounds + 1):
        for name, way in ways.items():
            card.fill(buffer, comm.rank + 1)
            way()
            if not card.holds(buffer, expected):
                sys.exit(f"rank {comm.rank}: {name}: the sum of {count} values must be {expected}")
            card.fill(buffer, 0)
            comm.barrier()
            own = card.seconds(partial(repeated, way)) / REPEATS
            times[name].append(max(comm.allgather_object(own)))
    theirs, ours = (statistics.median(taken[1:]) for taken in times.values())
    return theirs, ours


if __name__ == "__main__":
    main()
