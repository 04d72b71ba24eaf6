"""A test pass over all ranks, whose score does not depend on how many they are.

The batches of a pass are dealt to the ranks like cards. Every batch's outputs go into a row of their own, the
rows are gathered, and the rows are summed in the order of the batches in float64 on every rank. An accuracy
is all correct labels over all counted ones.
"""

from __future__ import annotations

import time
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from dtrain.comm.communicator import Communicator
from dtrain.layers.accuracy import Accuracy
from dtrain.layers.data_source import DataSource
from dtrain.metrics.reporter import Score
from dtrain.net import Net
from dtrain.solvers.outputs import num_outputs, output_values, told
from dtrain.solvers.votes import Request, Votes

Rows: TypeAlias = NDArray[np.float64]


def accuracies(net: Net) -> dict[int, Accuracy]:
    """The layers whose first top is an output, by the place of its value among those of all outputs."""
    makers = {id(step.top[0]): step.layer for step in net.steps if step.top}
    found = {}
    place = 0
    for name in net.outputs:
        maker = makers.get(id(net.blobs[name]))
        if isinstance(maker, Accuracy):
            found[place] = maker
        place += net.blobs[name].count
    return found


@final
class Tester:
    """Runs one test net for `test_iter` batches, all ranks together."""

    def __init__(self, net: Net, net_id: int, test_iter: int, comm: Communicator, votes: Votes) -> None:
        self.net = net
        self.net_id = net_id
        self.test_iter = test_iter
        self._comm = comm
        self._votes = votes
        self._sources = [layer for layer in net.layers if isinstance(layer, DataSource)]

    def run(self, iteration: int, compute_loss: bool) -> Score | None:
        """Mean outputs over the pass; None when a signal ended it. Collective."""
        begin = time.perf_counter()
        rank, size = self._comm.rank, self._comm.size
        positions = [source.position() for source in self._sources]
        exact = accuracies(self.net)
        rows = np.zeros((self.test_iter, 1 + num_outputs(self.net) + 2 * len(exact)), np.float64)
        for first in range(0, self.test_iter, size):
            self._votes.cast()
            batch = first + rank
            if batch < self.test_iter:
                loss = self._forward()
                labels = [count for layer in exact.values() for count in (layer.correct, layer.counted)]
                rows[batch] = [loss, *output_values(self.net), *labels]
            if Request.STOP in self._votes.result():
                for source, position in zip(self._sources, positions, strict=True):
                    source.seek(position)
                return None
        total = self._sum(rows)
        means = total[: 1 + num_outputs(self.net)] / self.test_iter
        counts = total[len(means) :].reshape(-1, 2)
        for column, (correct, counted) in zip(exact, counts, strict=True):
            means[1 + column] = correct / max(1, counted)
        return Score(
            iteration=iteration,
            net_id=self.net_id,
            outputs=told(self.net, means[1:].tolist()),
            seconds=time.perf_counter() - begin,
            loss=float(means[0]) if compute_loss else None,
        )

    def _forward(self) -> float:
        """One batch, run layer by layer or replayed; its loss."""
        net = self.net
        if net.replayer is None or net.is_watched:
            return net.forward()
        net.feed()
        net.replayer.run(("test pass", net.version), net.compute, net.refresh)
        net.scope.passes += 1
        net.check_data()
        return net.losses.total()

    def _sum(self, rows: Rows) -> Rows:
        """Rows of all ranks, added in the order of the batches."""
        self._comm.wait(self._comm.allreduce(rows, "test scores"))  # a row is zero on all ranks but one
        total = np.zeros(rows.shape[1], np.float64)
        for row in rows:
            total += row
        return total
