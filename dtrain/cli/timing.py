"""How long each layer of a net takes, forward and backward, measured while the whole net runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from dtrain.layers.data_source import DataSource
from dtrain.layers.relu import ReLU
from dtrain.net import Net

WARM_UP: Final = 2  # passes that reserve memory, compile loops and fill the feeders

Seconds: TypeAlias = NDArray[np.float64]
Part: TypeAlias = Callable[[], object]


@final
@dataclass(frozen=True)
class Timing:
    """Seconds of each iteration (axis 0); of layers by their place in the net (axis 1).

    A whole pass is more than the sum of its layers by what lies between them. `data_wait` is a part of the
    forward pass; `allreduce` is what the backward pass did not hide.
    """

    layer_forward: Seconds
    layer_backward: Seconds
    forward: Seconds
    backward: Seconds
    data_wait: Seconds
    allreduce: Seconds
    update: Seconds

    def total(self) -> Seconds:
        """Of whole iterations."""
        return self.forward + self.backward + self.allreduce + self.update


@final
class Stopwatch:
    """Seconds between the moment before a layer and the moment after it, by the net's hooks."""

    def __init__(self, net: Net) -> None:
        num = len(net.steps)
        self.forward, self.backward = np.zeros(num), np.zeros(num)
        self._begin = 0.0
        self._backend = net.scope.backend
        net.before_forward.append(self._start)
        net.after_forward.insert(0, self._stop_forward)
        net.before_backward.append(self._start)
        net.after_backward.insert(0, self._stop_backward)  # before the gradients start to be summed

    def _start(self, index: int) -> None:
        self._begin = time.perf_counter()

    def _stop_forward(self, index: int) -> None:
        self._backend.synchronize()
        self.forward[index] = time.perf_counter() - self._begin

    def _stop_backward(self, index: int) -> None:
        self._backend.synchronize()
        self.backward[index] = time.perf_counter() - self._begin


def measure(
    net: Net,
    iterations: int,
    *,
    begin_backward: Part | None = None,
    reduce: Part | None = None,
    update: Part | None = None,
) -> Timing:
    """Run so many iterations behind a few to warm up; a net alone has no allreduce and no update."""
    watch = Stopwatch(net)
    sources = [layer for layer in net.layers if isinstance(layer, DataSource)]
    layers = np.zeros((2, iterations, len(net.steps)))
    parts = np.zeros((5, iterations))
    for i in range(-WARM_UP, iterations):
        waited_s = sum(source.waited_s for source in sources)
        net.clear_param_diffs()
        moments = [time.perf_counter()]
        net.forward()
        moments.append(time.perf_counter())
        if begin_backward is not None:
            begin_backward()
        net.backward()
        moments.append(time.perf_counter())
        for part in (reduce, update):
            if part is not None:
                part()
                net.scope.backend.synchronize()
                moments.append(time.perf_counter())
        if i >= 0:
            layers[:, i] = watch.forward, watch.backward
            parts[: len(moments) - 1, i] = np.diff(moments)
            parts[4, i] = sum(source.waited_s for source in sources) - waited_s
    forward, backward, allreduce, updating, data_wait = parts
    return Timing(layers[0], layers[1], forward, backward, data_wait, allreduce, updating)


def table(net: Net, timing: Timing) -> list[str]:
    """One line a layer: median milliseconds, share of all layers' time, and what computes it."""
    forward = np.median(timing.layer_forward, axis=0) * 1e3
    backward = np.median(timing.layer_backward, axis=0) * 1e3
    whole = float((forward + backward).sum()) or 1.0
    rows = [("layer", "type", "forward ms", "backward ms", "share", "computed by")]
    for i, step in enumerate(net.steps):
        share = f"{100 * (forward[i] + backward[i]) / whole:.1f}%"
        back = f"{backward[i]:.3f}" if step.needs_backward else "-"
        rows.append(
            (step.layer.name, step.layer.spec.type, f"{forward[i]:.3f}", back, share, computed_by(net, i))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [aligned(row, widths) for row in rows]


def aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    cells = [
        cell.rjust(width) if 2 <= column <= 4 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def computed_by(net: Net, index: int) -> str:
    """The implementations behind a layer, or the layer that it is fused into."""
    step = net.steps[index]
    names = ", ".join(step.layer.implementations())
    if isinstance(step.layer, ReLU) and step.layer.is_fused:
        before = [s for s in net.steps[:index] if any(top is step.bottom[0] for top in s.top)]
        return f"fused into {before[-1].layer.name}; backward {names}"
    return names


def totals(timing: Timing) -> list[str]:
    """Means over the iterations, worded as `caffe time` words them, and what it does not tell."""
    rows = [
        ("Average Forward pass", timing.forward),
        ("Average Backward pass", timing.backward),
        ("Average Forward-Backward", timing.forward + timing.backward),
        ("Average Data wait", timing.data_wait),
    ]
    for name, part in (("Average Exposed allreduce", timing.allreduce), ("Average Update", timing.update)):
        rows += [(name, part)] if part.any() else []
    lines = [f"{name}: {seconds.mean() * 1e3:.6g} ms." for name, seconds in rows]
    return [*lines, f"Total Time: {timing.total().sum() * 1e3:.6g} ms."]
