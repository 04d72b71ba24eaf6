"""What a communicator needs of the device whose arrays it sums: streams, events, copies, by CuPy's names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy.typing as npt

from dtrain.comm.communicator import Array


class Stream(Protocol):
    """A queue of the device. An event marks a place in one queue for another to wait for."""

    @property
    def ptr(self) -> int: ...

    def record(self, event: Any) -> Any: ...

    def wait_event(self, event: Any) -> None: ...

    def synchronize(self) -> None: ...


class Lane(ABC):
    """The way to one device. What fills and reads its arrays is queued on `compute`.

    Device arrays are flat and contiguous, with `size`, `dtype`, `nbytes` and slices that share memory.
    """

    compute: Stream

    @abstractmethod
    def use(self) -> None:
        """Make the device the calling thread's: in a new thread CUDA's is the first."""

    @abstractmethod
    def is_device(self, array: Any) -> bool:
        """Whether the array lies in the device's memory."""

    @abstractmethod
    def address(self, array: Any) -> int:
        """Where a device array lies."""

    @abstractmethod
    def stream(self) -> Stream:
        """A stream beside `compute`."""

    @abstractmethod
    def event(self) -> Any:
        """An event without a clock."""

    @abstractmethod
    def constants(self, values: Array) -> Any:
        """The values in device memory, there on return."""

    @abstractmethod
    def pinned(self, count: int, dtype: npt.DTypeLike) -> Array:
        """Zeros in host memory that the device copies into without the host's help."""

    @abstractmethod
    def tell(self, source: Any, target: Array, stream: Stream) -> None:
        """Queue a copy of a device array into pinned memory on this stream."""

    @abstractmethod
    def download(self, source: Any, target: Array) -> None:
        """Device to host behind all that is queued on `compute`; the values are there on return."""

    @abstractmethod
    def upload(self, source: Array, target: Any) -> None:
        """Queue host to device on `compute`; the source must stay as it is until a later download returns."""

    @abstractmethod
    def pin(self, array: Array) -> str:
        """Make copies to and from this host memory fast; the reason where that cannot be, else empty."""
