"""CUDA's streams, events and captures, for a stand-in of CuPy: what is queued runs late, in the worst order.

Nothing runs until somebody waits for it, and then only what must come before. With `copies_first` all streams
but the first run what they have as soon as they may. What an order of streams does not forbid happens in one
of the two.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import final

Call = Callable[[], None]


class CUDARuntimeError(RuntimeError):
    """What CuPy raises."""


class CUDADriverError(RuntimeError):
    """What CuPy raises where it calls the driver."""


@final
class Work:
    """One thing that is queued, and what must come before."""

    def __init__(self, call: Call, before: list[Work]) -> None:
        self.call: Call | None = call
        self.before = before

    @property
    def is_done(self) -> bool:
        return self.call is None

    @property
    def is_ready(self) -> bool:
        return all(work.is_done for work in self.before)

    def run(self) -> None:
        """After all that must come before."""
        open_: list[Work] = [self]
        while open_:
            work = open_[-1]
            if work.call is None:
                open_.pop()
            elif work.is_ready:
                call, work.call = work.call, None
                work.before = []
                call()
            else:
                open_.extend(other for other in work.before if not other.is_done)


@final
class Capture:
    """A graph in the making: calls, and the numbers of those that each comes behind."""

    def __init__(self, origin: Stream) -> None:
        self.origin = origin
        self.streams = [origin]
        self.nodes: list[tuple[Call, frozenset[int]]] = []
        self.is_broken = False

    def add(self, call: Call, behind: frozenset[int]) -> frozenset[int]:
        self.nodes.append((call, behind))
        return frozenset({len(self.nodes) - 1})

    def joined(self, heads: frozenset[int]) -> bool:
        """Whether these come behind all others."""
        seen: set[int] = set()
        open_ = list(heads)
        while open_:
            node = open_.pop()
            if node not in seen:
                seen.add(node)
                open_.extend(self.nodes[node][1])
        return len(seen) == len(self.nodes)


@final
class Graph:
    """What a capture kept."""

    def __init__(self, machine: Machine, nodes: list[tuple[Call, frozenset[int]]]) -> None:
        self._machine = machine
        self._nodes = nodes
        self.uploads = 0

    def upload(self, stream: Stream) -> None:
        self.uploads += 1

    def launch(self, stream: Stream) -> None:
        self._machine.queue(stream, self._run)

    def _run(self) -> None:
        """Of the calls that may come next always the one captured last."""
        left = set(range(len(self._nodes)))
        while left:
            node = max(n for n in left if not self._nodes[n][1] & left)
            self._nodes[node][0]()
            left.remove(node)


@final
class Stream:
    """CuPy's, of the thread's current card."""

    def __init__(self, machine: Machine, *, non_blocking: bool = False, is_null: bool = False) -> None:
        self._machine = machine
        self.ptr = 0 if is_null else next(machine.addresses)
        self.device_id = machine.here.card
        self.non_blocking = non_blocking
        self.is_eager = machine.copies_first and len(machine.streams) > 1
        self.last: Work | None = None
        self.capture: Capture | None = None
        self.heads: frozenset[int] = frozenset()
        machine.streams[self.ptr] = self

    def use(self) -> Stream:
        if self.device_id != self._machine.here.card:
            raise RuntimeError(
                "The device that the stream is created on does not match with the current device"
            )
        self._machine.here.stream = self
        return self

    def synchronize(self) -> None:
        self._machine.fail("synchronize")
        if self.capture is not None:
            self.capture.is_broken = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")
        self._machine.wait(self.last)

    def record(self, event: Event) -> Event:
        if event.device_id != self.device_id:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: an event of another card")
        if self.capture is None:
            event.work, event.capture = self.last, None
        else:
            event.work, event.capture, event.heads = None, self.capture, self.heads
        return event

    def wait_event(self, event: Event) -> None:
        with self._machine.lock:
            if event.capture is not None:
                if self.capture is None and not event.capture.is_broken:
                    if event.capture.origin.capture is not event.capture:
                        raise CUDARuntimeError("cudaErrorCapturedEvent")
                    self.capture = event.capture
                    event.capture.streams.append(self)
                    self.heads = frozenset()
                if self.capture is not event.capture:
                    raise CUDARuntimeError("cudaErrorStreamCaptureMerge")
                self.heads |= event.heads
            elif self.capture is not None:
                if event.work is not None:
                    self.capture.is_broken = True
                    raise CUDARuntimeError("cudaErrorStreamCaptureIsolation")
            elif event.work is not None:
                before = [work for work in (self.last, event.work) if work is not None]
                self.last = Work(lambda: None, before)

    def begin_capture(self, mode: int | None = None) -> None:
        assert mode is None, "relaxed, which is CuPy's default, lets other threads go on"
        if not self.non_blocking:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if self.capture is not None:
            raise CUDARuntimeError("cudaErrorIllegalState")
        self.capture = Capture(self)
        self.heads = frozenset()

    def end_capture(self) -> Graph:
        return Graph(self._machine, self._end().nodes)

    def _end(self) -> Capture:
        capture, heads = self.capture, self.heads
        if capture is None or capture.origin is not self:
            raise CUDARuntimeError("cudaErrorIllegalState")
        for stream in capture.streams:
            stream.capture, stream.heads = None, frozenset()
        if capture.is_broken:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
        if not capture.joined(heads):
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined")
        return capture

    def is_capturing(self) -> bool:
        if self.capture is not None and self.capture.is_broken:
            raise RuntimeError("the stream was capturing, but an error has invalidated the capture sequence")
        return self.capture is not None


@final
class Event:
    """CuPy's, of the thread's current card."""

    def __init__(self, machine: Machine, *, disable_timing: bool = False) -> None:
        assert disable_timing, "an event that only orders keeps no time"
        self._machine = machine
        self.device_id = machine.here.card
        self.work: Work | None = None
        self.capture: Capture | None = None
        self.heads: frozenset[int] = frozenset()
        self._asked = 0

    @property
    def done(self) -> bool:
        """A device goes on while it is asked."""
        if self.capture is not None:
            return False
        self._asked += 1
        if self._asked > 2:
            self._machine.wait(self.work)
        return self.work is None or self.work.is_done

    def synchronize(self) -> None:
        self._machine.fail("synchronize")
        if self.capture is not None:
            raise CUDARuntimeError("cudaErrorCapturedEvent")
        self._machine.wait(self.work)


class Here(threading.local):
    """What CUDA and CuPy keep for each thread."""

    card = 0
    stream: Stream | None = None


@final
class Machine:
    """All cards of a machine, and what is queued on them."""

    def __init__(self, *, copies_first: bool = False) -> None:
        self.copies_first = copies_first
        self.addresses = itertools.count(0x1000, 0x10)
        self.here = Here()
        self.lock = threading.RLock()
        self.streams: dict[int, Stream] = {}
        self.freed: list[Call] = []
        self.faults: dict[str, Exception] = {}
        Stream(self, is_null=True)

    @property
    def is_capturing(self) -> bool:
        return any(stream.capture is not None for stream in list(self.streams.values()))

    def current(self) -> Stream:
        return self.here.stream or self.streams[0]

    def fail(self, what: str) -> None:
        """Once, as a test has asked for."""
        fault = self.faults.pop(what, None)
        if fault is not None:
            raise fault

    def queue(self, stream: Stream | None, call: Call, *, with_host: bool = False) -> None:
        """On a stream, or the thread's current one."""
        with self.lock:
            on = stream or self.current()
            if on.device_id != self.here.card:
                raise CUDARuntimeError("cudaErrorInvalidResourceHandle: the current card is another")
            if on.capture is None:
                self._poison(on)
                self._add(on, call)
                return
            if on.capture.is_broken:
                raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated")
            if with_host:
                raise RuntimeError("the current stream is capturing, so transfers are disallowed")
            on.heads = on.capture.add(call, on.heads)

    def _add(self, stream: Stream, call: Call) -> None:
        stream.last = Work(call, [] if stream.last is None else [stream.last])
        for other in list(self.streams.values()):
            work = other.last
            if other.is_eager and work is not None and _is_free(work, self._first()):
                work.run()

    def _first(self) -> Work | None:
        """The last of what is queued on the first stream that a device makes."""
        return next((s.last for address, s in self.streams.items() if address), None)

    def _poison(self, stream: Stream) -> None:
        """What was freed is handed out again, in the order of the stream that it is of: the first."""
        if self.freed and stream.ptr and stream is next(s for a, s in self.streams.items() if a):
            calls, self.freed = self.freed, []
            for call in calls:
                self._add(stream, call)

    def wait(self, work: Work | None) -> None:
        with self.lock:
            if work is not None:
                work.run()


def _is_free(work: Work, first: Work | None) -> bool:
    """Whether it runs without anything of the first stream that has not run yet."""
    if first is None or first.is_done:
        return True
    slow: set[int] = set()
    open_ = [first]
    while open_:
        here = open_.pop()
        if id(here) not in slow and not here.is_done:
            slow.add(id(here))
            open_.extend(here.before)
    seen: set[int] = set()
    open_ = [work]
    while open_:
        here = open_.pop()
        if here.is_done or id(here) in seen:
            continue
        if id(here) in slow:
            return False
        seen.add(id(here))
        open_.extend(here.before)
    return True
