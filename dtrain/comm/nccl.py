"""Sums of a card's arrays by NCCL, on a stream beside the one that computes.

A sum is forked from the compute stream by one event and joined to it by another; the host never waits. All
of it may be captured into a CUDA graph once the same arrays have been summed uncaptured: then every event
and buffer is there, and NCCL has made its connections.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import Array, Communicator, Ticket
from dtrain.comm.compression import Compression
from dtrain.comm.device_watch import DeviceWatch, Progress
from dtrain.comm.lane import Lane
from dtrain.comm.watch import say
from dtrain.errors import CommError

if TYPE_CHECKING:
    from dtrain.comm.mpi import MpiCommunicator

log = logging.getLogger(__name__)

MULTI_RANK_VERSION = 23000
"""From NCCL 2.30 on several ranks may use one card; before, it refuses ranks of one host on one card."""

LEAVE_S = 5.0  # NCCL's end waits for graphs that hold its collectives, and after a failure perhaps for ever

Queue = Callable[[], Any]


def load() -> Any:
    """CuPy's NCCL, or a CommError that says how to get it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # CuPy warns of a missing library in many lines, on every rank
            nccl = importlib.import_module("cupy.cuda.nccl")
    except ImportError as error:
        raise _absent(str(error)) from None
    if not nccl.available:
        raise _absent("no libnccl.so.2 that CuPy finds")
    return nccl


def _absent(reason: str) -> CommError:
    return CommError(
        f"NCCL: CuPy must find it to sum gradients between GPUs, got {reason}; pip install nvidia-nccl-cu13 "
        f"(nvidia-nccl-cu12 with cupy-cuda12x), or pass --comm mpi, which sums in host memory"
    )


def version_text(nccl: Any) -> str:
    """Its version as people write it: 22703 is 2.27.3."""
    code = int(nccl.get_version())
    return f"{code // 10000}.{code // 100 % 100}.{code % 100}"


def share_cards(nccl: Any, rank: int) -> None:
    """Let several ranks use one card, for tests; before NCCL starts, since it reads its variables once."""
    if int(nccl.get_version()) >= MULTI_RANK_VERSION:
        os.environ["NCCL_MULTI_RANK_GPU_ENABLE"] = "1"
    else:
        os.environ["NCCL_HOSTID"] = f"dtrain-rank-{rank}"


@final
@dataclass
class Sum:
    """A collective under way on a device array."""

    array: Any
    done: Any
    narrow: Any = None  # what was summed instead, to be widened into the array


@final
class NcclCommunicator(Communicator):
    """The ranks of `inner`, which carries objects and host arrays; NCCL carries arrays of the device.

    `lane` leads to this rank's card, `nccl` is CuPy's module. With compression float32 arrays are summed as
    16-bit numbers. The device's collectives are watched with the times of inner's stall watch. Collective.
    """

    def __init__(
        self, inner: MpiCommunicator, lane: Lane, nccl: Any, compression: Compression | None = None
    ) -> None:
        assert inner.watch is not None, "a group of one needs no NCCL"
        self.inner, self.lane, self.compression = inner, lane, compression
        self.rank, self.size = inner.rank, inner.size
        self.local_rank, self.local_size = inner.local_rank, inner.local_size
        self.threads = inner.threads
        self.is_capturable = True
        self._nccl = nccl
        self._kinds = {
            np.dtype(np.float32): nccl.NCCL_FLOAT32,
            np.dtype(np.float64): nccl.NCCL_FLOAT64,
            np.dtype(np.int64): nccl.NCCL_INT64,
            np.dtype(np.uint8): nccl.NCCL_UINT8,
        }
        self._stream = lane.stream()
        self._fork = lane.event()
        self._events: list[Any] = []
        self._narrow: dict[tuple[int, int], Any] = {}
        self._issued = 0
        self._pending: dict[Ticket, Sum] = {}
        self._progress = Progress(lane)
        self._group = self._join()
        self._watch = DeviceWatch(
            inner.watch, self._progress, check=self._group.check_async_error, end=self._end
        )

    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        return self.inner.allocate(count, dtype)

    def allreduce(self, array: Array, label: str = "") -> Ticket:
        self._watch.turns += 1
        if not self.lane.is_device(array):
            return self.inner.allreduce(array, label)
        kind = self._kinds[np.dtype(array.dtype)]
        summed, narrow = array, None
        if self.compression is not None and array.dtype == np.float32:
            summed = narrow = self._narrowed(array, self.compression)
            is_half = self.compression.format == "fp16"
            kind = self._nccl.NCCL_FLOAT16 if is_half else self._nccl.NCCL_BFLOAT16
        address = self.lane.address(summed)
        queue = partial(
            self._group.allReduce,
            address,
            address,
            array.size,
            kind,
            self._nccl.NCCL_SUM,
            self._stream.ptr,
        )
        done = self._beside(queue, label or "allreduce")
        self._issued += 1
        ticket = Ticket(-self._issued)  # inner's are positive
        self._pending[ticket] = Sum(array, done, narrow)
        return ticket

    def wait(self, ticket: Ticket) -> None:
        under_way = self._pending.pop(ticket, None)
        if under_way is None:
            self.inner.wait(ticket)
            return
        self._join_compute(under_way.done)
        if under_way.narrow is not None and self.compression is not None:
            self.compression.widen(under_way.narrow, under_way.array, float(self.size))

    def poll(self) -> None:
        self.inner.poll()

    def broadcast(self, array: Array, root: int = 0) -> None:
        if not self.lane.is_device(array):
            self.inner.broadcast(array, root)
            return
        kind = self._kinds[np.dtype(array.dtype)]
        address = self.lane.address(array)
        queue = partial(self._group.broadcast, address, address, array.size, kind, root, self._stream.ptr)
        self._join_compute(self._beside(queue, "broadcast"))

    def on_host(self, array: Array) -> Array:
        if not self.lane.is_device(array):
            return self.inner.on_host(array)
        values: Array = np.empty(array.size, array.dtype)
        self.lane.download(array, values)
        return values

    def allgather_object(self, obj: object) -> list[Any]:
        return self.inner.allgather_object(obj)

    def barrier(self) -> None:
        self.inner.barrier()

    def note(self, phase: str) -> None:
        self._watch.turns += 1
        self.inner.note(phase)

    def close(self, *, failed: bool = False) -> None:
        if failed:
            self.give_up()
        else:
            self.leave()
        self.inner.close(failed=failed)

    def leave(self) -> None:
        """End NCCL's part; `inner` goes on. Graphs that hold its collectives must be gone. Collective."""
        self.lane.compute.synchronize()
        self._stream.synchronize()
        self._watch.stop()
        self.inner.barrier()  # nobody leaves while another may still be receiving
        if not self._ends(self._group.destroy):
            log.warning(
                "comm: NCCL has not ended in %g s; a CUDA graph that holds its collectives must be released "
                "before",
                LEAVE_S,
            )

    def give_up(self) -> None:
        """Stop NCCL's part with whatever is under way, in bounded time."""
        self._watch.stop()
        self._ends(self._group.abort)

    def _join(self) -> Any:
        """NCCL's own communicator; its id travels by MPI."""
        number = self._nccl.get_unique_id() if self.rank == 0 else None
        number = self.inner.allgather_object(number)[0]
        with self.inner.waiting("start of NCCL"):
            try:
                return self._nccl.NcclCommunicator(self.size, number, self.rank)
            except (RuntimeError, KeyError) as error:  # KeyError: a state that CuPy has no name for
                raise CommError(
                    f"NCCL {version_text(self._nccl)}: all {self.size} ranks must connect, got {error!r}; "
                    f"NCCL_DEBUG=INFO tells more, and --comm mpi does without"
                ) from error

    def _beside(self, queue: Queue, label: str) -> Any:
        """Queue a collective on NCCL's stream behind what is queued on `compute`; the event of its end."""
        self.lane.compute.record(self._fork)
        self._stream.wait_event(self._fork)
        self._progress.enter(label, self._stream)
        try:
            queue()
        except (RuntimeError, KeyError) as error:
            raise CommError(f"NCCL: {label} must be accepted, got {error!r}") from error
        self._progress.leave(self._stream)
        done = self._events.pop() if self._events else self.lane.event()
        self._stream.record(done)
        return done

    def _join_compute(self, done: Any) -> None:
        self.lane.compute.wait_event(done)
        self._events.append(done)

    def _narrowed(self, array: Array, compression: Compression) -> Any:
        key = self.lane.address(array), array.size
        if key not in self._narrow:
            self._narrow[key] = compression.empty(array.size)
        compression.narrow(array, self._narrow[key], 1 / self.size)
        return self._narrow[key]

    def _end(self, error: CommError) -> None:
        say(f"error: {error}")
        self._ends(self._group.abort)  # called by the watch itself, which need not be stopped
        self.inner.close(failed=True)

    def _ends(self, call: Callable[[], Any]) -> bool:
        """Whether the call has returned within LEAVE_S; if not it goes on in a thread of no consequence."""

        def run() -> None:
            self.lane.use()
            call()

        thread = threading.Thread(target=run, name="NCCL's end", daemon=True)
        thread.start()
        thread.join(LEAVE_S)
        return not thread.is_alive()
