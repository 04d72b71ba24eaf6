"""What happens during a run, as values, and who wants to hear of it.

The solver loop calls one `Reporter` and never asks who listens: log lines, a progress display, a JSON
file and metrics are each one, and `Reporters` hands every event to several.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple, final


class Start(NamedTuple):
    """A run begins, or goes on: `iteration` is the number of updates that the weights have had."""

    net: str
    solver: str
    lr_policy: str
    iteration: int
    max_iter: int
    ranks: int
    global_batch: int  # images an iteration: local batch x iter_size x ranks; 0 where no layer tells
    resumed_from: str = ""


class PhaseSeconds(NamedTuple):
    """Where one iteration's time went; `allreduce_exposed` is only the waiting that backward did not hide."""

    data_wait: float
    forward: float
    backward: float
    allreduce_exposed: float
    update: float


class Step(NamedTuple):
    """One finished iteration of this rank; `samples` are this rank's own."""

    iteration: int
    samples: int
    seconds: PhaseSeconds


class Output(NamedTuple):
    """One number of one output blob; a blob with several numbers gives several outputs of one name."""

    name: str
    value: float
    loss_weight: float = 0.0


class Display(NamedTuple):
    """What `display: N` shows. `loss` is the smoothed one; `seconds` passed since the last display."""

    iteration: int
    loss: float
    lr: float
    iterations: int  # done since the last display
    seconds: float
    every: int  # the solver's `display`
    outputs: Sequence[Output] = ()


class Score(NamedTuple):
    """Mean outputs of one test net over all ranks; `loss` only where `test_compute_loss` asks for it."""

    iteration: int
    net_id: int
    outputs: Sequence[Output]
    seconds: float = 0.0
    loss: float | None = None


class Snapshot(NamedTuple):
    """One file of a snapshot."""

    iteration: int
    path: str
    what: str = "model"  # or "solver state"
    hdf5: bool = False


class Reporter(ABC):
    """Hears of a run's events, in the order in which the solver loop meets them."""

    @abstractmethod
    def start(self, event: Start) -> None: ...

    @abstractmethod
    def step(self, event: Step) -> None:
        """Called after every iteration: must cost microseconds."""

    @abstractmethod
    def display(self, event: Display) -> None: ...

    @abstractmethod
    def testing(self, iteration: int, net_id: int) -> None:
        """A test pass begins."""

    @abstractmethod
    def test(self, event: Score) -> None: ...

    @abstractmethod
    def test_interrupted(self) -> None: ...

    @abstractmethod
    def snapshot(self, event: Snapshot) -> None:
        """The writing of a snapshot's file begins."""

    @abstractmethod
    def snapshot_done(self, iteration: int, seconds: float) -> None:
        """All files of a snapshot are whole."""

    @abstractmethod
    def final_loss(self, iteration: int, loss: float) -> None:
        """The loss of the forward pass after the last update."""

    @abstractmethod
    def done(self) -> None: ...

    @abstractmethod
    def stopped_early(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """Give back files, threads and the terminal; called once, after a fault too."""


@final
class Reporters(Reporter):
    """Hands every event to each of several reporters, or to none; `at_close` runs after they closed."""

    def __init__(self, listeners: Sequence[Reporter], at_close: Sequence[Callable[[], None]] = ()) -> None:
        self._listeners = tuple(listeners)
        self._at_close = tuple(at_close)

    def start(self, event: Start) -> None:
        for listener in self._listeners:
            listener.start(event)

    def step(self, event: Step) -> None:
        for listener in self._listeners:
            listener.step(event)

    def display(self, event: Display) -> None:
        for listener in self._listeners:
            listener.display(event)

    def testing(self, iteration: int, net_id: int) -> None:
        for listener in self._listeners:
            listener.testing(iteration, net_id)

    def test(self, event: Score) -> None:
        for listener in self._listeners:
            listener.test(event)

    def test_interrupted(self) -> None:
        for listener in self._listeners:
            listener.test_interrupted()

    def snapshot(self, event: Snapshot) -> None:
        for listener in self._listeners:
            listener.snapshot(event)

    def snapshot_done(self, iteration: int, seconds: float) -> None:
        for listener in self._listeners:
            listener.snapshot_done(iteration, seconds)

    def final_loss(self, iteration: int, loss: float) -> None:
        for listener in self._listeners:
            listener.final_loss(iteration, loss)

    def done(self) -> None:
        for listener in self._listeners:
            listener.done()

    def stopped_early(self) -> None:
        for listener in self._listeners:
            listener.stopped_early()

    def close(self) -> None:
        for listener in self._listeners:
            listener.close()
        for callback in self._at_close:
            callback()
