"""Which kernels a training step on a card spends its time in, and how long none runs.

    python -m benchmarks.gpu_profile NET [--precision bf16] [--torch WAY] [--steps 10] [--top 20]

Kernels, copies and fills of the whole process are traced by CUPTI, which PyTorch's profiler brings; so
PyTorch must be installed, also where dtrain is looked at. Tracing takes time itself: compare kernels with
each other, and take a step's time from benchmarks.gpu.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from benchmarks.card_worker import NETS, PRECISIONS, WARM_UP_STEPS, Case, Subject
from benchmarks.gpu import WAYS
from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device

CATEGORIES = ("kernel", "gpu_memcpy", "gpu_memset")
NAME_WIDTH = 78


@final
@dataclass(frozen=True)
class Spent:
    """Of all launches of one kernel in one step."""

    name: str
    ms: float
    launches: float


def on_the_card(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The card's own events of a trace in Chrome's format."""
    return [event for event in trace["traceEvents"] if event.get("cat") in CATEGORIES]


def busy_ms(events: Sequence[dict[str, Any]]) -> float:
    """Milliseconds in which at least one of the events runs."""
    total, end = 0.0, float("-inf")
    for start, stop in sorted((event["ts"], event["ts"] + event["dur"]) for event in events):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e3


def span_ms(events: Sequence[dict[str, Any]]) -> float:
    """Milliseconds from the first begin to the last end."""
    if not events:
        return 0.0
    return float(max(e["ts"] + e["dur"] for e in events) - min(e["ts"] for e in events)) / 1e3


def by_kernel(events: Sequence[dict[str, Any]], steps: int) -> list[Spent]:
    """Names with their time in a step, the longest first."""
    times: dict[str, list[float]] = {}
    for event in events:
        times.setdefault(event["name"], []).append(event["dur"] / 1e3)
    spent = [Spent(name, sum(taken) / steps, len(taken) / steps) for name, taken in times.items()]
    return sorted(spent, key=lambda one: -one.ms)


def table(events: Sequence[dict[str, Any]], steps: int, wall_ms: float, top: int) -> list[str]:
    """What is printed."""
    busy, span = busy_ms(events) / steps, span_ms(events) / steps
    found = by_kernel(events, steps)
    lines = [f"{'ms':>8} {'share':>6} {'times':>7}  kernel"]
    lines += [
        f"{one.ms:8.3f} {one.ms / busy:6.1%} {one.launches:7.1f}  {one.name[:NAME_WIDTH]}"
        for one in found[:top]
    ]
    rest = sum(one.ms for one in found[top:])
    lines.append(f"{rest:8.3f} {rest / busy if busy else 0:6.1%} {'':7}  {max(0, len(found) - top)} others")
    idle = max(0.0, 1 - busy / span) if span else 0.0
    lines.append(
        f"a step: {wall_ms:.3f} ms by the host, {span:.3f} ms on the card, a kernel runs {busy:.3f} ms, "
        f"none {idle:.1%}; {sum(one.launches for one in found):.0f} launches"
    )
    return lines


def trace_of(subject: Subject, steps: int) -> tuple[dict[str, Any], float]:
    """(a trace of so many steps, milliseconds of one by the host)."""
    profiler: Any = importlib.import_module("torch.profiler")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]):
            subject.step(1)  # CUPTI's own start
            subject.synchronize()
        with profiler.profile(activities=[profiler.ProfilerActivity.CUDA]) as traced:
            begin = time.perf_counter()
            subject.step(steps)
            subject.synchronize()
            wall_ms = (time.perf_counter() - begin) / steps * 1e3
        traced.export_chrome_trace(str(path))
        return json.loads(path.read_text()), wall_ms


def subject_of(way: str) -> Subject:
    """dtrain's, or PyTorch's where a way of it is named."""
    if way:
        from benchmarks.torch_gpu_worker import TorchSubject

        return TorchSubject()
    from benchmarks.dtrain_gpu_worker import DtrainSubject

    return DtrainSubject()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("net", choices=NETS)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--torch", metavar="WAY", default="", help=f"PyTorch instead: {', '.join(WAYS)}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--top", type=int, default=20)
    given = parser.parse_args()
    try:
        cupy_device.count()
    except BackendError as error:
        sys.exit(f"not measured: {error}")
    batch, side = NETS[given.net]
    subject = subject_of(given.torch)
    print(subject.build(Case(given.net, batch, given.precision, side), given.torch or "plan on"))
    subject.step(WARM_UP_STEPS)
    subject.synchronize()
    trace, wall_ms = trace_of(subject, given.steps)
    events = on_the_card(trace)
    if not events:
        sys.exit("nothing traced: CUPTI saw no kernel; does PyTorch's profiler work on this machine?")
    for note in subject.notes():
        print(note)
    print("\n".join(table(events, given.steps, wall_ms, given.top)))


if __name__ == "__main__":
    main()
