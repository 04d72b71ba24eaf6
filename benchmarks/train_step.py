"""Milliseconds of a training step beside PyTorch's, on the same threads, in turns.

    python -m benchmarks.train_step [NET ...] [--threads 2] [--rounds 8]

The peer is PyTorch as its users would tune it: allocator that keeps its pages, fused SGD, and the better of
its default memory format and channels_last. The ratio is its median step over dtrain's; above 1 dtrain is
faster. `paired` is the median of the rounds' ratios, which a drifting machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
from typing import NamedTuple

from benchmarks.worker import KEEP_MEMORY, Worker


class Case(NamedTuple):
    shape: tuple[int, int, int, int]
    classes: int
    steps: int  # a round


CASES = {
    "lenet": Case((64, 1, 28, 28), 10, 60),
    "cifar10_quick": Case((100, 3, 32, 32), 10, 16),
    "caffenet": Case((16, 3, 227, 227), 1000, 3),
    "googlenet": Case((8, 3, 224, 224), 1000, 1),
    "resnet50": Case((8, 3, 224, 224), 1000, 1),
}


def compare(net: str, case: Case, threads: int, rounds: int) -> list[Worker]:
    """dtrain and both memory formats of PyTorch, one after the other in every round."""
    arguments = [net, *map(str, case.shape), str(case.classes), "--threads", str(threads)]
    environment = {"OMP_NUM_THREADS": str(threads), "NUMBA_NUM_THREADS": str(threads), **KEEP_MEMORY}
    workers = [
        Worker("dtrain", "benchmarks.dtrain_worker", arguments, environment),
        Worker("PyTorch", "benchmarks.torch_worker", arguments, environment),
        Worker(
            "PyTorch channels_last", "benchmarks.torch_worker", [*arguments, "--channels-last"], environment
        ),
    ]
    for number in range(rounds):
        for worker in workers if number % 2 == 0 else reversed(workers):
            worker.run(case.steps)
    for worker in workers:
        worker.close()
    return workers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "nets", nargs="*", default=[], metavar="NET", help=f"of {', '.join(CASES)}; default all"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    given = parser.parse_args()
    print(f"{'net':16} {'batch':>5} {'dtrain':>9} {'PyTorch':>9} {'ch_last':>9} {'ratio':>6} {'paired':>6}")
    for net in given.nets or CASES:
        case = CASES[net]
        ours, *theirs = compare(net, case, given.threads, given.rounds)
        best = min(theirs, key=lambda worker: statistics.median(worker.times))
        medians = [statistics.median(worker.times) * 1e3 for worker in (ours, *theirs)]
        ratio = statistics.median(best.times) / statistics.median(ours.times)
        paired = statistics.median(b / a for a, b in zip(ours.rounds, best.rounds, strict=True))
        times = " ".join(f"{median:6.2f} ms" for median in medians)
        print(f"{net:16} {case.shape[0]:5} {times} {ratio:6.2f} {paired:6.2f}", flush=True)


if __name__ == "__main__":
    main()
