"""Training images a second on a card beside PyTorch's, in turns, and how the time and the memory go.

    python -m benchmarks.gpu [NET ...] [--precision bf16 tf32] [--budget-s 480]
    python -m benchmarks.gpu --dry-run

Both train on random images that lie on the card. dtrain runs its Solver with the plan on. PyTorch runs eager
and compiled, in channels_last and contiguous, with autocast and fused SGD; its best is the peer. Each way of
PyTorch takes turns with dtrain, and the ratio is the median of the rounds' ratios, above 1 where dtrain is
faster. A way that no time is left for, or that fails, is told below the table.

memory: what the driver says is used (total less free) beyond what was before the net was built, the same
for both. outside: 1 - (seconds that the card takes for one step) / (seconds of a step, back to back, by the
host's clock). The card's seconds are between two events around one step that was queued while a kernel held
the card, so the host's work is not inside. ">" stands before it where the step itself waited for the card.

--dry-run needs no card: it compiles every kernel for sm_80 and sm_90, builds cuDNN's plans of every
convolution and normalisation for an H100, and takes steps of each net on the CPU in both frameworks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

from benchmarks.card_worker import NETS, PRECISIONS, Case
from benchmarks.turns import Budget, WorkerError, module_worker
from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device

WAYS = {  # of PyTorch, in the order of trying; seconds that each is expected to take
    "eager/channels_last": 10.0,
    "default/channels_last": 45.0,
    "reduce-overhead/channels_last": 25.0,
    "eager/contiguous": 10.0,
    "default/contiguous": 45.0,
    "max-autotune/channels_last": 150.0,
}
NEEDED = 2  # so many of the ways are tried while the whole time lasts, the others in a case's own share
MOST_NOTES = 6  # of one case
TARGET_RATIO, TARGET_OUTSIDE = 1.2, 0.03
GIB = 2**30
Tell = Callable[[str], None]


class Asked(Protocol):
    """What answers requests: a worker's process."""

    def ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]: ...

    def kill(self) -> None: ...


@final
@dataclass
class Timing:
    """The rounds of one way of one framework, or why there are none."""

    way: str
    rounds_s: list[float] = field(default_factory=list)  # of a step
    ratios: list[float] = field(default_factory=list)  # to dtrain's step in the same round
    busy_s: float = 0.0
    ahead: bool = True
    memory_bytes: int = 0
    pool_bytes: int = 0
    built_s: float = 0.0
    told: str = ""
    notes: list[str] = field(default_factory=list)
    failed: str = ""

    @property
    def step_s(self) -> float:
        """The median round's."""
        return statistics.median(self.rounds_s)

    @property
    def outside(self) -> float:
        """The share of a step in which the card does not work on it."""
        return max(0.0, 1 - self.busy_s / self.step_s)

    def built(self, answer: dict[str, Any]) -> None:
        """It is on the card and warm."""
        self.told, self.built_s, self.notes = answer["told"], answer["built_s"], answer["notes"]

    def add(self, answer: dict[str, Any]) -> None:
        """One more round."""
        self.rounds_s.append(answer["wall_s"])
        self.busy_s = answer["busy"]["seconds"]
        self.ahead = answer["busy"]["ahead"]
        self.memory_bytes = max(self.memory_bytes, answer["memory_bytes"])
        self.pool_bytes = max(self.pool_bytes, answer["pool_bytes"])


@final
@dataclass
class Row:
    """What was measured of one case."""

    case: Case
    ours: Timing = field(default_factory=lambda: Timing("plan on"))
    theirs: list[Timing] = field(default_factory=list)

    def best(self) -> Timing | None:
        """PyTorch's fastest way."""
        return min((t for t in self.theirs if t.rounds_s), key=lambda t: t.step_s, default=None)

    def ratio(self) -> float | None:
        """dtrain's speed over PyTorch's best."""
        best = self.best()
        return statistics.median(best.ratios) if best is not None and best.ratios else None


def run_case(
    case: Case, ours: Asked, peer: Asked | None, *, rounds: int, seconds: float, budget: Budget, share: Budget
) -> Row:
    """dtrain stays on the card while PyTorch's ways come and go."""
    row = Row(case)
    build = {"do": "build", "case": asdict(case)}
    try:
        row.ours.built(ours.ask({**build, "way": row.ours.way}, budget.left_s()))
    except WorkerError as error:
        row.ours.failed = error.short(200)
    for number, (way, expected_s) in enumerate(WAYS.items() if peer else ()):
        timing = Timing(way)
        row.theirs.append(timing)
        left = budget if number < NEEDED else share
        if left.left_s() < (expected_s if number >= NEEDED else 2 * seconds):
            timing.failed = "no time left"
            continue
        assert peer is not None
        try:
            timing.built(peer.ask({**build, "way": way}, left.left_s()))
            take_turns(row.ours, timing, ours, peer, rounds, seconds, left)
            peer.ask({"do": "drop"}, max(left.left_s(), 10.0))
        except WorkerError as error:
            timing.failed = error.short(200)
    if peer is None or not row.ours.rounds_s:
        alone(row.ours, ours, rounds, seconds, budget)
    if not row.ours.failed:
        try:
            ours.ask({"do": "drop"}, 60.0)
        except WorkerError as error:
            row.ours.failed = error.short(200)
    return row


def take_turns(
    mine: Timing, theirs: Timing, ours: Asked, peer: Asked, rounds: int, seconds: float, left: Budget
) -> None:
    """Rounds of both; the peer's go on if dtrain fails. Raises WorkerError of the peer."""
    request = {"do": "time", "seconds": seconds}
    for number in range(rounds):
        if number and left.left_s() < 4 * seconds:
            return
        turns = ("ours", "theirs") if number % 2 == 0 else ("theirs", "ours")
        latest = {}
        for turn in turns:
            if turn == "theirs":
                theirs.add(peer.ask(request, 60 + 20 * seconds))
                latest[turn] = theirs.rounds_s[-1]
            elif not mine.failed:
                try:
                    mine.add(ours.ask(request, 60 + 20 * seconds))
                    latest[turn] = mine.rounds_s[-1]
                except WorkerError as error:
                    mine.failed = error.short(200)
        if len(latest) == 2:
            theirs.ratios.append(latest["theirs"] / latest["ours"])


def alone(mine: Timing, ours: Asked, rounds: int, seconds: float, budget: Budget) -> None:
    """Rounds of dtrain without a peer."""
    for number in range(rounds):
        if mine.failed or (number and budget.left_s() < 2 * seconds):
            return
        try:
            mine.add(ours.ask({"do": "time", "seconds": seconds}, 60 + 20 * seconds))
        except WorkerError as error:
            mine.failed = error.short(200)


HEADER = (
    f"{'net':10} {'batch':>5} {'prec':>4} {'dtrain':>8} {'PyTorch':>8} {'its best way':29} {'ratio':>5} "
    f"{'GiB':>6} {'theirs':>6} {'outside':>7}"
)


def line_of(row: Row) -> str:
    """A row of the table; images a second."""
    case, mine, best, ratio = row.case, row.ours, row.best(), row.ratio()
    speed = f"{case.batch / mine.step_s:8.0f}" if mine.rounds_s else f"{'-':>8}"
    memory = f"{mine.memory_bytes / GIB:6.2f}" if mine.rounds_s else f"{'-':>6}"
    outside = f"{'' if mine.ahead else '>'}{mine.outside:.1%}" if mine.rounds_s else "-"
    peer, way, theirs = f"{'-':>8}", "-", f"{'-':>6}"
    if best is not None:
        peer, way = f"{case.batch / best.step_s:8.0f}", best.way
        theirs = f"{best.memory_bytes / GIB:6.2f}"
    compared = f"{ratio:5.2f}" if ratio is not None else f"{'-':>5}"
    line = (
        f"{case.net:10} {case.batch:5} {case.precision:>4} {speed} {peer} {way:29} {compared} "
        f"{memory} {theirs} {outside:>7}"
    )
    return f"{line}  dtrain: {mine.failed[:60]}" if mine.failed else line


def notes_of(row: Row) -> list[str]:
    """What the row's line leaves out."""
    case = f"{row.case.net} {row.case.precision}"
    notes = [f"{case}: PyTorch {t.way}: {t.failed}" for t in row.theirs if t.failed]
    notes += [f"{case}: dtrain: {row.ours.failed}"] if row.ours.failed else []
    return notes + [f"{case}: {note}" for note in row.ours.notes[:MOST_NOTES]]


def verdict(rows: Sequence[Row]) -> str:
    """How many cases reach the targets."""
    ratios = [ratio for row in rows if (ratio := row.ratio()) is not None]
    shares = [row.ours.outside for row in rows if row.ours.rounds_s]
    fast = sum(ratio >= TARGET_RATIO for ratio in ratios)
    dense = sum(share < TARGET_OUTSIDE for share in shares)
    return (
        f"ratio >= {TARGET_RATIO}: {fast} of {len(rows)} cases ({len(ratios)} compared); "
        f"outside < {TARGET_OUTSIDE:.0%}: {dense} of {len(rows)} ({len(shares)} measured)"
    )


def as_json(rows: Sequence[Row]) -> str:
    """All rounds of all ways."""
    return json.dumps(
        [
            {
                **asdict(row),
                "dtrain_images_per_s": row.case.batch / row.ours.step_s if row.ours.rounds_s else None,
                "ratio": row.ratio(),
                "best": best.way if (best := row.best()) is not None else None,
            }
            for row in rows
        ],
        indent=1,
    )


def cases_of(nets: Sequence[str], precisions: Sequence[str], batch: int | None) -> list[Case]:
    """Every net in the first precision, then in the next."""
    return [
        Case(net, batch or NETS[net][0], precision, NETS[net][1]) for precision in precisions for net in nets
    ]


def measure(given: argparse.Namespace, ours: Asked, peer: Asked | None, tell: Tell) -> list[Row]:
    """All cases that there is time for; the others are rows without figures."""
    budget = Budget(given.budget_s)
    cases = cases_of(given.nets or list(NETS), given.precision, given.batch)
    rows = []
    for number, case in enumerate(cases):
        if budget.left_s() < 4 * given.seconds:
            row = Row(case)
            row.ours.failed = "no time left"
        else:
            part = budget.part(min(given.net_s, budget.share_s(len(cases) - number)))
            whole = budget.part(given.net_s)
            row = run_case(
                case, ours, peer, rounds=given.rounds, seconds=given.seconds, budget=whole, share=part
            )
        rows.append(row)
        tell(line_of(row))
        if given.json:
            given.json.write_text(as_json(rows))
    return rows


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("nets", nargs="*", metavar="NET", help=f"of {', '.join(NETS)}; default all")
    made.add_argument("--precision", nargs="+", choices=PRECISIONS, default=["bf16", "tf32"])
    made.add_argument("--rounds", type=int, default=5, help="a way of PyTorch (default 5)")
    made.add_argument("--seconds", type=float, default=0.5, help="of a round of one framework (default 0.5)")
    made.add_argument("--batch", type=int, help="instead of each net's own")
    made.add_argument("--budget-s", type=float, default=480.0, help="of the whole command (default 480)")
    made.add_argument("--net-s", type=float, default=240.0, help="of one net and precision (default 240)")
    made.add_argument("--no-torch", action="store_true", help="dtrain alone")
    made.add_argument("--json", type=Path, metavar="PATH", help="write every round there")
    made.add_argument("--dry-run", action="store_true", help="what can be checked without a card")
    made.add_argument(
        "--libraries",
        type=Path,
        metavar="DIR",
        help="for the dry run: where `pip install --target DIR nvidia-cudnn-cu13 nvidia-cublas` put cuDNN",
    )
    return made


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line, read; unknown nets end the program."""
    made = parser()
    found = made.parse_args(given)
    if unknown := [net for net in found.nets if net not in NETS]:
        made.error(f"NET must be one of {', '.join(NETS)}, got {', '.join(unknown)}")
    return found


def main() -> None:
    given = arguments(sys.argv[1:])
    if given.dry_run:
        from benchmarks.dry_run import dry_run

        sys.exit(dry_run(given.nets or list(NETS), given.budget_s, given.libraries))
    try:
        cupy_device.count()
    except BackendError as error:
        sys.exit(f"not measured: {error}\n--dry-run tries what needs no card")
    ours = module_worker("dtrain", "benchmarks.dtrain_gpu_worker")
    peer = None if given.no_torch else module_worker("PyTorch", "benchmarks.torch_gpu_worker")
    print("training images a second, synthetic images on the card for both, in turns; medians of rounds")
    print(HEADER, flush=True)
    try:
        rows = measure(given, ours, peer, lambda line: print(line, flush=True))
    finally:
        ours.kill()
        if peer is not None:
            peer.kill()
    for note in dict.fromkeys(note for row in rows for note in notes_of(row)):
        print(f"  {note}")
    for told in dict.fromkeys(row.ours.told for row in rows if row.ours.told):
        print(f"  {told}")
    print(f"\n{HEADER}")
    for row in rows:
        print(line_of(row))
    print(verdict(rows))
    sys.exit(0 if all(row.ours.rounds_s for row in rows) else 1)


if __name__ == "__main__":
    main()
