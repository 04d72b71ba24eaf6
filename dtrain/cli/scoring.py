"""A test pass with the numbers of every batch and exact counts, the same at any number of ranks.

The batches are dealt to the ranks like cards; after each round every rank has all of its rows, and adds them
in the order of the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, final

import numpy as np

from dtrain.cli.job import agreed
from dtrain.comm.communicator import Communicator
from dtrain.metrics.reporter import Output
from dtrain.net import Net
from dtrain.solvers.outputs import num_outputs, output_values, told
from dtrain.solvers.testing import accuracies


class Counts(NamedTuple):
    """Labels that were right, of those that counted."""

    correct: int
    counted: int


@final
@dataclass(frozen=True)
class Result:
    """Means over the batches; the output at a place in `counts` is an accuracy, all right of all counted."""

    loss: float
    outputs: Sequence[Output]
    counts: dict[int, Counts]


OnBatch: TypeAlias = Callable[[int, Sequence[Output]], None]


def score(net: Net, batches: int, comm: Communicator, on_batch: OnBatch) -> Result:
    """Run the net on all ranks; `on_batch` hears of every batch in order, on every rank. Collective."""
    exact = accuracies(net)
    total = np.zeros(1 + num_outputs(net), np.float64)
    counts = dict.fromkeys(exact, Counts(0, 0))
    for first in range(0, batches, comm.size):
        row: tuple[list[float], list[Counts]] | None = None
        with agreed(comm):
            if first + comm.rank < batches:
                loss = net.forward()
                mine = [Counts(layer.correct, layer.counted) for layer in exact.values()]
                row = [loss, *output_values(net)], mine
        for rank, dealt in enumerate(comm.allgather_object(row)):
            if dealt is not None:
                values, theirs = dealt
                total += values
                on_batch(first + rank, told(net, values[1:]))
                for place, (correct, counted) in zip(exact, theirs, strict=True):
                    before = counts[place]
                    counts[place] = Counts(before.correct + correct, before.counted + counted)
    means = total / batches
    for place, (correct, counted) in counts.items():
        means[1 + place] = correct / max(1, counted)
    return Result(float(means[0]), told(net, means[1:].tolist()), counts)
