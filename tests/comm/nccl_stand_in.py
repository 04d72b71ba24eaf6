"""Streams, events, graphs and NCCL without a card: work is queued, and done as late or as early as CUDA may.

What two streams do without an event between them happens in either order; a test that runs with both finds
an order that nothing enforces. NCCL's sums are MPI's, so that ranks are processes as on cards.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.comm.compression import Compression, to_floats
from dtrain.comm.lane import Lane
from tests.kernels.cuda.cpu_device import GUARD, GUARD_BYTES, CpuDevice, guards_hold


class CudaError(Exception):
    """What CUDA would refuse."""


@final
@dataclass(eq=False)
class Event:
    """`records` counts its records in all; `capture` is that of the last one."""

    records: int = 0
    capture: Capture | None = None


@final
@dataclass(frozen=True)
class Op:
    """Work, or the record or the wait of one event's record."""

    run: Callable[[], None] | None = None
    records: tuple[Event, int] | None = None
    waits: tuple[Event, int] | None = None


@final
@dataclass(eq=False)
class Capture:
    """What is queued on the streams in it becomes a graph; `open` are forks that nothing has joined yet."""

    origin: Stream
    queues: dict[Stream, list[Op]] = field(default_factory=dict)
    open: set[Stream] = field(default_factory=set)
    recorded_on: dict[tuple[Event, int], tuple[Stream, int]] = field(default_factory=dict)


@final
class Stream:
    """A queue of a machine."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.machine = machine
        self.ptr = number
        self.queue: deque[Op] = deque()

    def add(self, op: Op) -> None:
        capture = self.machine.capture
        if capture is None or self not in capture.queues:
            self.queue.append(op)
            if self.machine.is_eager and self is self.machine.compute:
                self.synchronize()
            return
        capture.queues[self].append(op)
        if self is not capture.origin:
            capture.open.add(self)

    def run(self, work: Callable[[], None]) -> None:
        self.machine.now_or_replayed(lambda: self.add(Op(run=work)))

    def record(self, event: Event) -> Event:
        self.machine.now_or_replayed(lambda: self._record(event))
        return event

    def _record(self, event: Event) -> None:
        capture = self.machine.capture
        event.records += 1
        event.capture = capture if capture is not None and self in capture.queues else None
        self.add(Op(records=(event, event.records)))
        if event.capture is not None:
            assert capture is not None
            capture.recorded_on[event, event.records] = self, len(capture.queues[self])

    def wait_event(self, event: Event) -> None:
        self.machine.now_or_replayed(lambda: self._wait_event(event))

    def _wait_event(self, event: Event) -> None:
        capture = self.machine.capture
        if capture is not None and event.capture is capture:
            origin, length = capture.recorded_on[event, event.records]
            if self is capture.origin and length == len(capture.queues[origin]):
                capture.open.discard(origin)
            capture.queues.setdefault(self, [])
        elif event.capture is not None:
            raise CudaError("cudaErrorCapturedEvent: recorded in a capture that has ended")
        elif capture is not None and self in capture.queues and event.records:
            raise CudaError("cudaErrorStreamCaptureIsolation: recorded outside of the capture")
        self.add(Op(waits=(event, event.records)))

    def synchronize(self) -> None:
        self.machine.not_in_capture("synchronizes")
        self.machine.work_off(self)

    def begin_capture(self) -> None:
        assert self.machine.capture is None
        self.machine.capture = Capture(self, {self: []})

    def end_capture(self) -> Graph:
        capture = self.machine.capture
        assert capture is not None
        self.machine.capture = None
        if capture.open:
            raise CudaError("cudaErrorStreamCaptureUnjoined: a fork was not joined")
        return Graph(self.machine, capture)


@final
class Graph:
    """What was captured, to be launched any number of times."""

    def __init__(self, machine: Machine, capture: Capture) -> None:
        self.machine, self.capture = machine, capture

    def launch(self) -> None:
        queues = [(stream, deque(ops)) for stream, ops in self.capture.queues.items()]

        def run() -> None:
            self.machine.drain([(stream, deque(ops)) for stream, ops in queues], {}, None)

        self.machine.compute.run(run)


@final
class Here(threading.local):
    """What CUDA keeps for each thread."""

    is_current = False


@final
class Machine:
    """`beside_first`: other streams go as far ahead of `compute` as they may, else as far behind.

    Beside a `device` what computes does so at once; other streams still lag behind. What the device captures
    it replays here too.
    """

    def __init__(self, *, beside_first: bool = False, device: CpuDevice | None = None) -> None:
        self.beside_first, self.device = beside_first, device
        self.is_eager = device is not None
        self.streams: list[Stream] = []
        self.reached: dict[Event, int] = {}
        self.capture: Capture | None = None
        self.here = Here()
        self.here.is_current = True
        self.compute = self.stream()

    def stream(self) -> Stream:
        self.not_in_capture("makes a stream")
        self.streams.append(Stream(self, len(self.streams) + 1))
        return self.streams[-1]

    def at(self, number: int) -> Stream:
        return self.streams[number - 1]

    def now_or_replayed(self, call: Callable[[], None]) -> None:
        if self.device is not None and self.device.is_capturing:
            self.device._queue(call)
        else:
            call()

    def check_thread(self) -> None:
        if not self.here.is_current:
            raise CudaError("this thread's card is card 0, on which NCCL would make a context")

    def not_in_capture(self, what: str) -> None:
        if self.capture is not None or (self.device is not None and self.device.is_capturing):
            raise CudaError(f"a capture is under way, and this {what}")

    def work_off(self, stream: Stream) -> None:
        """Do what a stream holds, and what that waits for."""
        self.drain([(s, s.queue) for s in self.streams], self.reached, stream.queue)

    def finish(self) -> None:
        for stream in self.streams:
            self.work_off(stream)

    def drain(
        self,
        queues: list[tuple[Stream, deque[Op]]],
        reached: dict[Event, int],
        wanted: deque[Op] | None,
    ) -> None:
        """One operation after the other, of the first stream able to, until `wanted` or all are done."""
        order = sorted(queues, key=lambda pair: (pair[0] is self.compute) == self.beside_first)
        while wanted if wanted is not None else any(queue for _, queue in queues):
            for _, queue in order:
                if queue and _may_go(queue[0], reached):
                    op = queue.popleft()
                    if op.records is not None:
                        event, number = op.records
                        reached[event] = max(reached.get(event, 0), number)
                    if op.run is not None:
                        op.run()
                    break
            else:
                raise CudaError("every stream waits for another")


def _may_go(op: Op, reached: dict[Event, int]) -> bool:
    return op.waits is None or reached.get(op.waits[0], 0) >= op.waits[1]


def is_device_buffer(array: Any) -> bool:
    """Whether a CpuDevice has made the array or what it is a slice of: those lie between guards."""
    base = array
    while getattr(base, "base", None) is not None:
        base = base.base
    if not isinstance(base, np.ndarray) or base.dtype != np.uint8 or base.size < 2 * GUARD_BYTES:
        return False
    return bool(base.ndim == 1 and base[0] == GUARD and guards_hold(array))


@final
class StandInLane(Lane):
    """The way to a machine whose arrays are a CpuDevice's."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.compute = machine.compute
        self.pinned_bytes = 0

    def use(self) -> None:
        self.machine.here.is_current = True

    def is_device(self, array: Any) -> bool:
        return is_device_buffer(array)

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def stream(self) -> Stream:
        return self.machine.stream()

    def event(self) -> Event:
        self.machine.not_in_capture("makes an event")
        return Event()

    def constants(self, values: Any) -> Any:
        self.machine.not_in_capture("uploads constants")
        return values.copy()

    def pinned(self, count: int, dtype: DTypeLike) -> Any:
        self.machine.not_in_capture("allocates")
        return np.zeros(count, dtype)

    def tell(self, source: Any, target: Any, stream: Any) -> None:
        stream.run(lambda: np.copyto(target, source))

    def download(self, source: Any, target: Any) -> None:
        self.compute.synchronize()
        np.copyto(target, source)

    def upload(self, source: Any, target: Any) -> None:
        self.machine.not_in_capture("uploads")
        self.compute.run(lambda: np.copyto(target, source))

    def pin(self, array: Any) -> str:
        self.pinned_bytes += array.nbytes
        return ""


class NcclError(RuntimeError):
    """What CuPy raises."""


@final
class StandInNccl:
    """CuPy's module `nccl` on a machine, over all ranks of MPI's world.

    `fault` is what NCCL reports from then on; `refuses` what it says to a start.
    """

    available = True
    NCCL_FLOAT16, NCCL_FLOAT32, NCCL_FLOAT64, NCCL_BFLOAT16 = 6, 7, 8, 9
    NCCL_INT64, NCCL_UINT8, NCCL_SUM = 4, 1, 0

    def __init__(self, machine: Machine, *, refuses: str = "") -> None:
        self.machine = machine
        self.refuses = refuses
        self.fault: Exception | None = None
        self.calls: list[str] = []

    def get_version(self) -> int:
        return 23203

    def get_unique_id(self) -> bytes:
        return b"one id for all ranks".ljust(128, b"\0")

    def NcclCommunicator(self, size: int, number: bytes, rank: int) -> StandInGroup:
        if self.refuses:
            raise NcclError(self.refuses)
        return StandInGroup(self, size, number, rank)


@final
class StandInGroup:
    """NCCL's communicator."""

    def __init__(self, nccl: StandInNccl, size: int, number: bytes, rank: int) -> None:
        from mpi4py import MPI

        self.nccl = nccl
        self.world = MPI.COMM_WORLD.Dup()
        assert (self.world.size, self.world.rank) == (size, rank)
        assert self.world.allgather(number) == [number] * size

    def allReduce(self, source: int, target: int, count: int, kind: int, op: int, stream: int) -> None:
        assert source == target
        assert op == self.nccl.NCCL_SUM
        self.nccl.calls.append(f"allReduce of {count}")
        self.nccl.machine.at(stream).run(lambda: self._sum(target, count, kind))

    def broadcast(self, source: int, target: int, count: int, kind: int, root: int, stream: int) -> None:
        assert source == target
        self.nccl.calls.append(f"broadcast of {count}")
        values = _memory(target, count, _dtype(kind))
        self.nccl.machine.at(stream).run(lambda: self.world.Bcast(values, root))

    def check_async_error(self) -> None:
        if self.nccl.fault is not None:
            raise self.nccl.fault

    def abort(self) -> None:
        self.nccl.machine.check_thread()
        self.nccl.calls.append("abort")

    def destroy(self) -> None:
        self.nccl.machine.check_thread()
        self.nccl.calls.append("destroy")

    def _sum(self, address: int, count: int, kind: int) -> None:
        from mpi4py import MPI

        values = _memory(address, count, _dtype(kind))
        names = {self.nccl.NCCL_BFLOAT16: "bf16", self.nccl.NCCL_FLOAT16: "fp16"}
        if kind not in names:
            self.world.Allreduce(MPI.IN_PLACE, values)
            return
        floats = np.ascontiguousarray(to_floats(values, names[kind]))
        self.world.Allreduce(MPI.IN_PLACE, floats)
        values[:] = narrowed(floats, names[kind])


def _dtype(kind: int) -> DTypeLike:
    kinds: dict[int, DTypeLike] = {7: np.float32, 8: np.float64, 4: np.int64, 1: np.uint8}
    return kinds.get(kind, np.uint16)


def _memory(address: int, count: int, dtype: DTypeLike) -> Any:
    kind = np.dtype(dtype)
    return np.frombuffer((ctypes.c_byte * (count * kind.itemsize)).from_address(address), kind, count)


def narrowed(floats: Any, format: str) -> Any:
    """float32 rounded to the nearest 16-bit value, ties to even, as bits."""
    if format == "fp16":
        return floats.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(floats, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def casting(machine: Machine, format: str) -> Compression:
    """Casts that are queued on the machine's compute stream, as a backend's are."""

    def narrow(source: Any, target: Any, scale: float) -> None:
        machine.compute.run(lambda: np.copyto(target, narrowed(source * np.float32(scale), format)))

    def widen(source: Any, target: Any, scale: float) -> None:
        machine.compute.run(lambda: np.copyto(target, to_floats(source, format) * np.float32(scale)))

    def empty(count: int) -> Any:
        machine.not_in_capture("allocates")
        return np.full(count, 0xFFFF, np.uint16)

    return Compression(format, empty, narrow, widen)
