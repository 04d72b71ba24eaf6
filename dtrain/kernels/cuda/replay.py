"""Work that is captured as a CUDA graph once and then replayed: one launch instead of thousands.

The first time the work runs as it is: kernels are compiled, plans made, memory is taken. The second time it
is followed: what does it read, what does it leave, does the host take part? The third time it is captured.
Work in which the host takes part runs as it is for good, and the log says what the host does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, final

from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Later, Replayer
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.card import Card
from dtrain.kernels.cuda.device import Mark, Replay
from dtrain.kernels.cuda.trace import Trace

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[object, ...]

MOST_GRAPHS: Final = 8  # each holds what its launches point to
MOST_TRIES: Final = 3
MOST_REASONS: Final = 3


@final
@dataclass
class Work:
    """How far the work of one key is."""

    runs: int = 0
    tries: int = 0
    trace: Trace | None = None
    graph: Replay | None = None
    stays_as_it_is: bool = False


@final
class OnItsWay(Later):
    """A number that is copied to the host beside what the device goes on with."""

    def __init__(self, mark: Mark, values: NDArray[Any], fault: Callable[[], bool]) -> None:
        self._mark = mark
        self._values = values
        self._fault = fault

    def value(self) -> float:
        self._mark.wait()
        return float(self._values[0])

    @property
    def is_ready(self) -> bool:
        return self._mark.is_passed

    @property
    def met_bad_data(self) -> bool:
        return self._fault()


@final
class GraphReplayer(Replayer):
    """One trace at a time: work does not contain other work."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._works: dict[Key, Work] = {}
        self._copy: Mark | None = None  # of a number that replayed work would overwrite

    @property
    def num_graphs(self) -> int:
        """Of works that are replayed."""
        return sum(work.graph is not None for work in self._works.values())

    def run(self, key: Key, work: Callable[[], None], refresh: Callable[[], None]) -> None:
        if self._copy is not None:
            self._card.device.after(self._copy)
            self._copy = None
        about = self._of(key)
        if about.graph is not None and about.trace is not None:
            if about.trace.changed_by_host():
                about.graph = None  # the launches have other numbers built in than the host has now
                self._retry(key, about)
            else:
                refresh()
                self._launch(about.graph, about.trace)
                return
        if about.stays_as_it_is or about.runs == 0:
            work()
        elif about.trace is None or about.trace.changed_by_host():
            if about.trace is not None:
                self._retry(key, about)
            self._follow(key, about, work)
        else:
            self._capture(about, work)
        about.runs += 1

    def _of(self, key: Key) -> Work:
        found = self._works.pop(key, None) or Work()
        self._works[key] = found  # the newest is the last
        while len(self._works) > MOST_GRAPHS:
            self._works.pop(next(iter(self._works)))
        return found

    def _retry(self, key: Key, about: Work) -> None:
        about.trace = None
        about.tries += 1
        if about.tries >= MOST_TRIES:
            self._give_up(key, about, ["reads values that the host changes every time"])

    def _give_up(self, key: Key, about: Work, reasons: list[str]) -> None:
        about.stays_as_it_is = True
        told = list(dict.fromkeys(reasons))
        more = f" and {len(told) - MOST_REASONS} more" if len(told) > MOST_REASONS else ""
        logger.info(
            "plan: %s runs without a CUDA graph, since %s%s",
            " ".join(map(str, key)),
            "; ".join(told[:MOST_REASONS]),
            more,
        )

    def _follow(self, key: Key, about: Work, work: Callable[[], None]) -> None:
        trace = self._card.begin_trace()
        try:
            work()
        finally:
            self._card.end_trace()
        reasons = [reason for reason in (self._card.device.no_capture, *trace.on_the_host) if reason]
        if reasons:
            self._give_up(key, about, reasons)
        else:
            about.trace = trace

    def _capture(self, about: Work, work: Callable[[], None]) -> None:
        card, device = self._card, self._card.device
        assert about.trace is not None, "work is followed before it is captured"
        about.trace.prepare()
        device.begin_capture()
        trace = card.begin_trace(captured=True)
        try:
            work()
        except BaseException:
            device.abandon_capture()
            raise
        finally:
            card.end_trace()
        graph = device.end_capture()
        about.graph, about.trace = graph, trace
        self._launch(graph, trace)

    def _launch(self, graph: Replay, trace: Trace) -> None:
        self._card.variables.flush()
        trace.prepare()
        graph.launch()
        trace.conclude()

    def later(self, array: SyncedArray) -> Later:
        storage = own(array).storage
        values = self._card.device.host(1, storage.dtype)
        self._copy = self._card.device.copy_out(storage.bring(storage.base), values)
        return OnItsWay(self._copy, values, self._card.data_faults.later())

    def forget(self) -> None:
        self._works = {}

    def place(self, name: str) -> None:
        if self._card.trace is not None:
            self._card.trace.place = name
