"""What a card's streams give back through CuPy: marks, captured runs, and small copies under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import BackendError
from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.device import Mark, Replay
from dtrain.kernels.cuda.faults import Faults

LEAST_SPARE_BYTES: Final = 4096


@final
class CupyMark(Mark):
    """An event of a stream; `capture` is the number of the one that it was made in, or 0."""

    def __init__(self, event: Any, faults: Faults, capture: int = 0) -> None:
        self.event = event
        self.capture = capture
        self._faults = faults

    def wait(self) -> None:
        self._refuse()
        try:
            self.event.synchronize()
        except self._faults.kinds as error:
            raise self._faults.at("what is queued", error) from error

    @property
    def is_passed(self) -> bool:
        self._refuse()
        return bool(self.event.done)

    def _refuse(self) -> None:
        if self.capture:
            raise BackendError(
                "CUDA graph: a mark that the host waits for must be made outside of a capture, got one inside"
            )


@final
class CupyReplay(Replay):
    """A CUDA graph, and what its launches point to."""

    def __init__(self, graph: Any, stream: Any, keep: list[object], faults: Faults) -> None:
        self._graph = graph
        self._stream = stream
        self._keep = keep
        self._faults = faults

    def launch(self) -> None:
        try:
            self._graph.launch(self._stream)
        except self._faults.kinds as error:
            raise self._faults.at("the launch of a CUDA graph", error) from error


@final
class UnderWay:
    """What copies beside the main stream read and write, held until they are over.

    CuPy's pools hand memory out again as soon as nobody holds it, whatever the device still does with it. Any
    thread may add.
    """

    def __init__(self) -> None:
        self._copies: deque[tuple[Any, object, object]] = deque()  # oldest first
        self._lock = threading.Lock()

    def add(self, event: Any, source: object, target: object) -> None:
        """Until the event."""
        with self._lock:
            while self._copies and self._copies[0][0].done:
                self._copies.popleft()
            self._copies.append((event, source, target))


@final
class Sender:
    """Room in pinned memory for a few numbers at a time, used again once they have reached the device."""

    def __init__(self, room: Callable[[int], Plain]) -> None:
        self._room = room
        self._sent: deque[tuple[Any, NDArray[Any]]] = deque()  # oldest first
        self._spare: list[NDArray[Any]] = []

    def hold(self, source: NDArray[Any]) -> NDArray[Any]:
        """The numbers' bytes in pinned memory."""
        while self._sent and self._sent[0][0].done:
            self._spare.append(self._sent.popleft()[1])
        values = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
        at = next((i for i, spare in enumerate(self._spare) if spare.size >= values.size), None)
        room = self._room(max(values.size, LEAST_SPARE_BYTES)) if at is None else self._spare.pop(at)
        room[: values.size] = values
        return room

    def sent(self, event: Any, room: NDArray[Any]) -> None:
        """The room is in use until the event."""
        self._sent.append((event, room))
