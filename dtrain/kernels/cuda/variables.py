"""Numbers that kernels read from device memory because they change from one replay of a graph to the next."""

from __future__ import annotations

import weakref
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.kernels.cuda.device import Buffer, Device

ROOM_BYTES: Final = 1 << 16
ALIGNMENT_BYTES: Final = 16


@final
class Variable:
    """Some numbers of one type; `buffer` is where kernels read them."""

    def __init__(self, owner: Variables, start: int, count: int, dtype: np.dtype[Any]) -> None:
        self._owner = owner
        self._values: NDArray[Any] = owner.host[start : start + count * dtype.itemsize].view(dtype)
        self.buffer: Buffer = owner.on_device[start : start + count * dtype.itemsize].view(dtype)

    def set(self, values: NDArray[Any] | int | float) -> None:
        """Kernels that are queued from now on, or in the next replay, read these."""
        self._values[...] = values
        self._owner.changed()


@final
class Variables:
    """All variables of a card, in one block: one small copy brings them to the device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._used = 0
        self._free: dict[int, list[int]] = {}  # by bytes: where variables were that nobody has any more
        self._is_behind = False
        self.host: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self.on_device: Buffer = None

    def new(self, count: int, dtype: DTypeLike) -> Variable:
        """Room for numbers that are not set yet; AssertionError when the block is full."""
        kind = np.dtype(dtype)
        if not self.host.size:
            self.host = np.zeros(ROOM_BYTES, np.uint8)
            self.on_device = self._device.empty(ROOM_BYTES, np.uint8)
        size = -(-count * kind.itemsize // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        free = self._free.setdefault(size, [])
        if free:
            start = free.pop()
        else:
            start = self._used
            self._used += size
        assert self._used <= ROOM_BYTES, "variables are few numbers"
        made = Variable(self, start, count, kind)
        weakref.finalize(made, free.append, start)
        return made

    def changed(self) -> None:
        """Queue the copy now, or, while a graph is captured, before it is replayed."""
        self._is_behind = True
        if not self._device.is_capturing:
            self.flush()

    def flush(self) -> None:
        """Bring the device up to date."""
        if self._is_behind:
            self._device.send(self.host[: self._used], self.on_device[: self._used])
            self._is_behind = False
