"""The stall watch of what a GPU waits for: collectives that are queued, or replayed in a CUDA graph.

The host does not run while they do. So each writes its number into host memory when it begins and 0 when it
has ended, and the watch's thread looks there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np

from dtrain.comm.board import Standing
from dtrain.comm.lane import Lane, Stream
from dtrain.comm.watch import GRACE_S, NOBODY, Watch, main_stack, say
from dtrain.errors import CommError, StallError

MOST_LABELS = 4096
OTHERS = "a collective"  # the label of those beyond


def device_stall_text(waiter: Standing, standings: Sequence[Standing]) -> str:
    """Which collective a GPU stands in, since when, and for whom it waits."""
    culprits = "; ".join(_place_of(late) for late in absent_from(standings, waiter.device_at))
    return (
        f"{waiter.name}: its GPU is waiting {waiter.device_s:.1f} s in {waiter.device_label}; "
        f"not arrived: {culprits or NOBODY}"
    )


def absent_from(standings: Sequence[Standing], number: int) -> list[Standing]:
    """The ranks whose GPU is not in this collective."""
    return [standing for standing in standings if standing.device_at != number]


def _place_of(late: Standing) -> str:
    device = f", its GPU in {late.device_label}" if late.device_at else ""
    return f'{late.name}, phase "{late.phase}"{device}'


@final
class Progress:
    """Where this rank's GPU is, written by the GPU: legal in a captured stream.

    A label has the same number on all ranks, which issue their collectives in one order.
    """

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._numbers = lane.constants(np.arange(MOST_LABELS + 1, dtype=np.int32))
        self._place = lane.pinned(1, np.int32)
        self._of_label: dict[str, int] = {}
        self.labels = [""]

    def enter(self, label: str, stream: Stream) -> None:
        self._write(self._number_of(label), stream)

    def leave(self, stream: Stream) -> None:
        self._write(0, stream)

    @property
    def place(self) -> int:
        """The number of the collective that the GPU is in; 0 for none."""
        return int(self._place[0])

    def _number_of(self, label: str) -> int:
        if label not in self._of_label:
            if len(self.labels) == MOST_LABELS:
                self.labels.append(OTHERS)
            if len(self.labels) > MOST_LABELS:
                return MOST_LABELS
            self._of_label[label] = len(self.labels)
            self.labels.append(label)
        return self._of_label[label]

    def _write(self, number: int, stream: Stream) -> None:
        self._lane.tell(self._numbers[number : number + 1], self._place, stream)


@final
class DeviceWatch:
    """Looks, with every look of the stall watch, where the GPU is and whether its collectives have failed.

    A GPU stands still while its place and `turns`, which the host counts up as training goes on, stay as they
    are. `check` raises for a failure; `end` is called with the error and must end every rank.
    """

    def __init__(
        self, watch: Watch, progress: Progress, *, check: Callable[[], Any], end: Callable[[CommError], None]
    ) -> None:
        self.turns = 0
        self._watch, self._progress = watch, progress
        self._check, self._end = check, end
        self._seen = (0, 0)
        self._since = time.monotonic()
        self._warned = self._dumped = 0.0
        self._lock = threading.Lock()
        self._is_stopped = False
        watch.also = (*watch.also, self.look)

    def stop(self) -> None:
        """No look is under way or comes any more."""
        with self._lock:
            self._is_stopped = True
        self._watch.also = tuple(look for look in self._watch.also if look != self.look)
        self._watch.board.device(0, 0.0, "")

    def look(self) -> None:
        with self._lock:
            if self._is_stopped:
                return
            board = self._watch.board
            place, now = self._progress.place, time.monotonic()
            if (place, self.turns) != self._seen:
                self._seen, self._since = (place, self.turns), now
            label = self._progress.labels[place]
            board.device(place, now - self._since if place else 0.0, label)
            standings = board.standings()
            mine = next(standing for standing in standings if standing.rank == board.rank)
            try:
                self._check()
            except Exception as error:  # CuPy has no names for NCCL's newer states and raises KeyError
                self._end(CommError(f"{mine.name}: NCCL failed in {label or 'no collective'}: {error!r}"))
            self._judge(mine, standings)

    def _judge(self, mine: Standing, standings: Sequence[Standing]) -> None:
        waiters = [standing for standing in standings if standing.device_s > self._watch.warn_s]
        if not waiters:
            return
        first = waiters[0]
        if first is mine and self._warned != self._since:
            self._warned = self._since
            say(f"stall: {device_stall_text(mine, standings)}")
        is_late = mine.device_at != first.device_at and not mine.awaited
        if is_late and self._dumped != self._since:
            self._dumped = self._since
            say(f"stall: {mine.name}: the others' GPUs wait for this rank, which is here:\n{main_stack()}")
        patience_s = self._watch.abort_s if first is mine else self._watch.abort_s + GRACE_S
        if mine.device_s > patience_s:
            text = device_stall_text(mine, standings)
            self._end(StallError(f"{text}; a collective must end in {self._watch.abort_s:g} s"))
