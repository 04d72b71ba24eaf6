"""What kernels find wrong in the data: noted on the device, looked at when the host waits anyway."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final, final

import numpy as np

from dtrain.kernels.cuda.device import Buffer, Device

ROOM: Final = 1024
NUMBERS: Final = 3


@final
class DataFault:
    """Room for what one operator's kernels meet: in how many passes, then the first one's place and value."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer


@final
class DataFaults:
    """All of a card, in one block: one small copy tells whether there is any."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._block: Buffer = None
        self._used = 0
        self._free: list[int] = []

    def new(self) -> DataFault:
        """Empty room; AssertionError when the block is full."""
        if self._block is None:
            self._block = self._device.empty(ROOM * NUMBERS, np.float64)
        if self._free:
            index = self._free.pop()
        else:
            index = self._used
            self._used += 1
        assert self._used <= ROOM, "few operators look at labels"
        made = DataFault(self._block[index * NUMBERS : (index + 1) * NUMBERS])
        self._device.clear(made.buffer)
        weakref.finalize(made, self._free.append, index)
        return made

    def found(self) -> bool:
        """Whether any kernel that is queued so far has met something wrong; waits for the device."""
        return self.later()()

    def later(self) -> Callable[[], bool]:
        """As `found` by what is queued so far; the copy to the host runs beside what comes next."""
        if not self._used:
            return _nothing
        used = self._used * NUMBERS
        noted = self._device.host(used, np.float64)
        copied = self._device.copy_out(self._block[:used], noted)
        in_use = np.setdiff1d(np.arange(self._used), self._free)

        def look() -> bool:
            copied.wait()
            return bool(noted.reshape(-1, NUMBERS)[in_use, 0].any())

        return look


def _nothing() -> bool:
    return False
