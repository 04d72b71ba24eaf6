"""What every group of processes can do, whatever carries the bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NewType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ticket = NewType("Ticket", int)
"""Stands for one collective that was enqueued; the collectives of a communicator are numbered from 1."""

ALIGNMENT_BYTES = 64  # one cache line, one AVX-512 register


class Communicator(ABC):
    """Ranks 0..size-1 that call the same collectives in the same order.

    Arrays are C-contiguous float32, float64, int64 or uint8, of one shape and type on all ranks. They lie
    in host memory; a communicator made for a device takes the device's too. The bits of a sum are the same
    on every rank. Inside one machine an allocated array is summed in rank order.
    """

    rank: int
    size: int
    local_rank: int
    """This rank's number among those on its machine."""
    local_size: int
    threads: int
    """Cores that this rank may keep busy."""
    is_capturable: bool
    """Whether sums of the device's arrays may be captured into a CUDA graph and replayed."""

    @abstractmethod
    def allocate(self, count: int, dtype: npt.DTypeLike = np.float32) -> Array:
        """A zeroed flat array, aligned to 64 bytes, that this communicator reduces fastest. Collective."""

    @abstractmethod
    def allreduce(self, array: Array, label: str = "") -> Ticket:
        """Enqueue array <- sum of array over the ranks; nobody touches the array before `wait`.

        `label` tells the stall watch what the array is.
        """

    @abstractmethod
    def wait(self, ticket: Ticket) -> None:
        """Return when the collective behind the ticket is complete on this rank.

        For an array of a device, complete for what is queued on the device from now on.
        """

    @abstractmethod
    def poll(self) -> None:
        """Move the enqueued collectives on as far as they go without waiting."""

    @abstractmethod
    def broadcast(self, array: Array, root: int = 0) -> None:
        """array <- array of `root`, complete on return, as `wait` says."""

    @abstractmethod
    def on_host(self, array: Array) -> Array:
        """The array's values in host memory, for reading: itself if it lies there."""

    @abstractmethod
    def allgather_object(self, obj: object) -> list[Any]:
        """The objects of all ranks, in rank order; they travel pickled."""

    @abstractmethod
    def barrier(self) -> None:
        """Return when every rank has called this."""

    @abstractmethod
    def note(self, phase: str) -> None:
        """Tell the stall watch what this rank does between collectives, for example "forward"."""

    @abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """Leave the group: with all others after a good end, or ending every rank at once after a failure."""


def aligned_zeros(count: int, dtype: npt.DTypeLike) -> Array:
    """A flat array of zeros that starts on a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    raw = np.zeros(count * kind.itemsize + ALIGNMENT_BYTES, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT_BYTES
    return raw[start : start + count * kind.itemsize].view(kind)
