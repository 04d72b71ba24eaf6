"""The forward and backward passes of one iteration, run layer by layer or replayed as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

from dtrain.comm.communicator import Communicator
from dtrain.kernels.backend import Known, Later, Replayer
from dtrain.layers.data_source import DataSource
from dtrain.net import Net
from dtrain.solvers.gradients import Gradients
from dtrain.solvers.phase_clock import PhaseClock


@final
class Passes:
    """`iter_size` passes whose gradients add up, summed over the ranks as the last backward goes on."""

    def __init__(
        self,
        net: Net,
        gradients: Gradients,
        comm: Communicator,
        iter_size: int,
        clock: PhaseClock,
        sources: Sequence[DataSource],
    ) -> None:
        self._net = net
        self._gradients = gradients
        self._comm = comm
        self._iter_size = iter_size
        self._clock = clock
        self._sources = sources
        backend = net.scope.backend
        self._total = backend.array(())
        self._add_up = backend.operators("DEFAULT").WeightedSum()

    def run(self) -> Later:
        """The loss, mean over the passes; `Gradients.finish` comes next, unless a replay has done it."""
        replayer = self._net.replayer
        if replayer is None or self._net.is_watched or not self._comm.is_capturable:
            return Known(self._run_layers() / self._iter_size)
        for i in range(self._iter_size):
            self._replay(replayer, i == 0, i == self._iter_size - 1)
        self._comm.note("update")
        return Checked(replayer.later(self._total), self._net.check_data)

    def replayable(self, key: tuple[object, ...], work: Callable[[], None]) -> None:
        """Do this work, which the host has no part in, or replay it."""
        if self._net.replayer is None:
            work()
        else:
            self._net.replayer.run(key, work, _nothing)

    def _run_layers(self) -> float:
        loss = 0.0
        for i in range(self._iter_size):
            waited_s = self._waited_s()
            self._comm.note("forward")
            if i == 0:
                self._net.clear_param_diffs()
            loss += self._net.forward()
            self._clock.lap("forward")
            self._clock.move(self._waited_s() - waited_s, "forward", "data_wait")
            self._comm.note("backward")
            if i == self._iter_size - 1:
                self._gradients.begin_last_pass()
            self._net.backward()
            self._clock.lap("backward")
        self._comm.note("update")
        return loss

    def _replay(self, replayer: Replayer, first: bool, last: bool) -> None:
        """One pass; the clock sees how long it took to queue it."""
        net = self._net
        waited_s = self._waited_s()
        self._comm.note("forward")
        net.feed()
        self._clock.lap("forward")
        self._clock.move(self._waited_s() - waited_s, "forward", "data_wait")
        self._comm.note("backward")
        key = ("forward and backward", *(["first pass"] if first else []), *(["last pass"] if last else []))
        replayer.run((*key, net.version), lambda: self._pass(first, last), net.refresh)
        net.scope.passes += 1
        self._clock.lap("backward")

    def _pass(self, first: bool, last: bool) -> None:
        net = self._net
        if first:
            net.clear_param_diffs()
        net.compute()
        values = [blob.data for blob in net.losses.blobs]
        weights = [net.losses.weight_of(blob) for blob in net.losses.blobs]
        self._add_up.forward(values, weights, self._total, 1.0 / self._iter_size, add=not first)
        if last:
            self._gradients.begin_last_pass()
        net.backward()
        if last:
            self._gradients.finish()

    def _waited_s(self) -> float:
        return sum(source.waited_s for source in self._sources)


@final
class Checked(Later):
    """A loss behind which the data are known to be sound: `check` is called where a device met others."""

    def __init__(self, loss: Later, check: Callable[[], None]) -> None:
        self._loss = loss
        self._check = check

    def value(self) -> float:
        value = self._loss.value()
        if self._loss.met_bad_data:
            self._check()
        return value

    @property
    def is_ready(self) -> bool:
        return self._loss.is_ready

    @property
    def met_bad_data(self) -> bool:
        return self._loss.met_bad_data


def _nothing() -> None:
    """No number of the work changes without `Updater.set`."""
