"""What `display` shows: the smoothed loss and the outputs, their mean over the ranks."""

from __future__ import annotations

import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dtrain.comm.communicator import Communicator, Ticket
from dtrain.kernels.backend import Later
from dtrain.metrics.recorder import Gauge, Recorder
from dtrain.metrics.reporter import Display, Reporter
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers.debug_info import debug_info
from dtrain.solvers.loss_watch import LossWatch
from dtrain.solvers.outputs import output_values, told
from dtrain.solvers.smoothing import SmoothedLoss

MOST_UNSEEN: Final = 1  # losses of iterations that are queued: the host stays that far ahead of the device


@final
class Displays:
    """Follows the loss of every iteration; every `display` of them the mean over the ranks is told.

    The sum over the ranks is started in `begin` and awaited in `finish`, behind the gradients.
    """

    def __init__(
        self,
        param: pb.SolverParameter,
        net: Net,
        comm: Communicator,
        reporter: Reporter,
        recorder: Recorder,
    ) -> None:
        self._param = param
        self._net = net
        self._comm = comm
        self._reporter = reporter
        self._watch = LossWatch(net, comm.rank, recorder)
        self._smoothed = SmoothedLoss(param.average_loss)
        self._backend = net.scope.backend
        self._memory: Gauge | None = None
        if self._backend.memory_bytes() is not None:
            about = "What this rank's arrays take of its GPU's memory."
            self._memory = recorder.gauge("device_memory_bytes", about)
        self._unseen: deque[tuple[int, Later]] = deque()
        self._shown: tuple[int, float, NDArray[np.float64], Ticket] | None = None
        self.restart(0)

    def restart(self, it: int) -> None:
        """A new run of iterations begins."""
        self._smoothed.restart()
        self._last_iter = it
        self._last_time = time.perf_counter()

    def catch_up(self) -> None:
        """Look at the losses that are left; waits for the device."""
        self._see(most_left=0)

    def is_due(self, it: int) -> bool:
        return self._param.display > 0 and it % self._param.display == 0

    def debug_info(self, it: int) -> AbstractContextManager[None]:
        """The context in which iteration `it` runs the net."""
        return debug_info(self._net) if self._param.debug_info and self.is_due(it) else nullcontext()

    def begin(self, it: int, loss: Later, lr: float) -> None:
        """Iteration `it` had this loss. Collective where a display is due.

        A loss that the device has yet to compute is looked at when the next one is on its way.
        """
        self._unseen.append((it, loss))
        self._see(most_left=0 if self.is_due(it) else MOST_UNSEEN)
        if self.is_due(it):
            numbers = np.array([self._smoothed.value, *output_values(self._net)], np.float64)
            self._shown = it, lr, numbers, self._comm.allreduce(numbers, "display")

    def _see(self, most_left: int) -> None:
        """Take in the losses that are there, and wait for more until at most so many are left."""
        while self._unseen and (self._unseen[0][1].is_ready or len(self._unseen) > most_left):
            it, later = self._unseen.popleft()
            loss = later.value()
            self._smoothed.add(loss)
            self._watch.see(it, loss)

    def finish(self) -> None:
        """Tell what was begun, if anything was."""
        if self._shown is None:
            return
        it, lr, numbers, ticket = self._shown
        self._shown = None
        self._comm.wait(ticket)
        numbers /= self._comm.size
        now = time.perf_counter()
        if self._memory is not None:
            self._memory.set(self._backend.memory_bytes() or 0)
        self._reporter.display(
            Display(
                iteration=it,
                loss=float(numbers[0]),
                lr=lr,
                iterations=it - self._last_iter,
                seconds=now - self._last_time,
                every=self._param.display,
                outputs=told(self._net, numbers[1:].tolist()),
            )
        )
        self._last_iter, self._last_time = it, now

    def final_loss(self, it: int, loss: float) -> None:
        """The loss of one more forward pass after the last update. Collective."""
        self._smoothed.add(loss)
        mean = np.array([self._smoothed.value], np.float64)
        self._comm.wait(self._comm.allreduce(mean, "final loss"))
        self._reporter.final_loss(it, float(mean[0]) / self._comm.size)
