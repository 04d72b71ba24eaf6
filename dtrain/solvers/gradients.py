"""Gradients summed over the ranks while backward goes on."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from dtrain.comm.communicator import Communicator
from dtrain.comm.reducer import Reducer
from dtrain.net import Net


@final
class Gradients:
    """Tells a reducer, layer by layer, which gradients of a net are final.

    Only the last backward pass of an iteration completes a gradient: `begin_last_pass` comes before it.
    """

    def __init__(self, net: Net, comm: Communicator) -> None:
        assert net.params.diff is not None, "a net that trains has its own parameters"
        self._params = net.params.in_completion_order()
        # A slice takes the padding behind it along: a bucket is one contiguous piece.
        slices = list(pairwise([*(param.start for param in self._params), net.params.diff.size]))
        self.reducer = Reducer(comm, net.params.diff, slices)
        self._of_layer: dict[int, list[int]] = {}
        for i, param in enumerate(self._params):
            self._of_layer.setdefault(param.layer_index, []).append(i)
        self._is_last_pass = False
        if comm.size > 1:
            net.on_gradients = self._layer_done

    def begin_last_pass(self) -> None:
        self._is_last_pass = True

    def _layer_done(self, layer_index: int) -> None:
        if not self._is_last_pass:
            self.reducer.poll()
            return
        for i in self._of_layer.get(layer_index, ()):
            self._params[i].blob.diff.pull()
            self.reducer.ready(i)
        self.reducer.poll()

    def finish(self) -> float:
        """Wait for the sums; the seconds that backward did not hide. Once is enough: a replayed pass has."""
        if not self._is_last_pass:
            return 0.0
        self._is_last_pass = False
        self.reducer.finish()
        if self.reducer.buckets:
            for param in self._params:
                param.blob.diff.push()
        return self.reducer.exposed_s
