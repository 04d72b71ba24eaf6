"""Sums of a device's arrays through host memory and MPI, where there is no NCCL."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dtrain.comm.communicator import Array, Communicator, Ticket
from dtrain.comm.compression import Compression, to_floats
from dtrain.comm.lane import Lane

log = logging.getLogger(__name__)


@final
@dataclass(frozen=True)
class Stage:
    """Host memory in which a device array is summed; `narrow` holds what comes over the bus compressed."""

    sums: Array
    narrow: tuple[Any, Array] | None


@final
class StagedCommunicator(Communicator):
    """The ranks of `inner`, on host arrays and on arrays of the device that `lane` leads to.

    A device array is copied into memory that `inner` sums fastest, kept for the next sum of the same array.
    With compression half of the bytes come down; they are summed as float32.
    """

    def __init__(self, inner: Communicator, lane: Lane, compression: Compression | None = None) -> None:
        self.inner, self.lane, self.compression = inner, lane, compression
        self.rank, self.size = inner.rank, inner.size
        self.local_rank, self.local_size = inner.local_rank, inner.local_size
        self.threads = inner.threads
        self.is_capturable = False
        self._stages: dict[tuple[int, int], Stage] = {}
        self._pending: dict[Ticket, tuple[Array, Any]] = {}
        self._has_warned = False

    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        return self.inner.allocate(count, dtype)

    def allreduce(self, array: Array, label: str = "") -> Ticket:
        if not self.lane.is_device(array):
            return self.inner.allreduce(array, label)
        stage = self._stage(array)
        if stage.narrow is None or self.compression is None:
            self.lane.download(array, stage.sums)
        else:
            on_device, on_host = stage.narrow
            self.compression.narrow(array, on_device, 1 / self.size)
            self.lane.download(on_device, on_host)
            np.multiply(to_floats(on_host, self.compression.format), self.size, out=stage.sums)
        ticket = self.inner.allreduce(stage.sums, label)
        self._pending[ticket] = stage.sums, array
        return ticket

    def wait(self, ticket: Ticket) -> None:
        self.inner.wait(ticket)
        if ticket in self._pending:
            self.lane.upload(*self._pending.pop(ticket))

    def poll(self) -> None:
        self.inner.poll()

    def broadcast(self, array: Array, root: int = 0) -> None:
        if not self.lane.is_device(array):
            self.inner.broadcast(array, root)
            return
        values = self.on_host(array)
        self.inner.broadcast(values, root)
        self.lane.upload(values, array)
        self.lane.compute.synchronize()

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
        self.inner.note(phase)

    def close(self, *, failed: bool = False) -> None:
        self.inner.close(failed=failed)

    def _stage(self, array: Array) -> Stage:
        key = self.lane.address(array), array.size
        if key not in self._stages:
            sums = self.inner.allocate(array.size, array.dtype)
            reason = self.lane.pin(sums)
            if reason and not self._has_warned:
                self._has_warned = True
                log.warning("comm: copies of gradients are slower, since memory is not pinned: %s", reason)
            narrow = None
            if self.compression is not None and array.dtype == np.float32:
                narrow = self.compression.empty(array.size), self.lane.pinned(array.size, np.uint16)
            self._stages[key] = Stage(sums, narrow)
        return self._stages[key]
