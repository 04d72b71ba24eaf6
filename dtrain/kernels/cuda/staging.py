"""Batches on their way to the device, copied beside what it computes."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.device import Buffer, Device, Mark


@final
class Staging:
    """One buffer between the host's memory and an array of the device.

    The slow copy from the host goes into it on the stream of copies, while kernels may still read the array's
    present values; the fast one within the device comes behind those kernels.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._room: Buffer | None = None
        self._arrived: Mark | None = None  # the last batch, in the room
        self._free: Mark | None = None  # the room, of the last batch

    def bring(self, source: Plain, target: Buffer) -> None:
        """target <- source, which must not change until `release` returns."""
        device = self._device
        if self._room is None or self._room.size < source.size:
            self._room = device.empty(source.size, source.dtype)
            self._free = device.mark()  # memory may come from what the main stream still reads
        part = self._room[: source.size]
        self._arrived = device.copy_in(source, part, self._free)
        device.after(self._arrived)
        device.copy(part, target)
        self._free = device.mark()

    def release(self) -> None:
        """Return when the last source has been read."""
        if self._arrived is not None:
            self._arrived.wait()
