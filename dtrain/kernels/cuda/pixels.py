"""Images of 8 bits as they were decoded, made into a batch: mirror, mean and scale."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer, Device, Mark


@final
class Pixels:
    """rows (N, bytes) -> top (N, C, h, w), in the type and order that the layers behind it compute in."""

    def __init__(
        self,
        backend: CudaBackend,
        is_interleaved: bool,
        means: NDArray[np.float32],
        mean_image: NDArray[np.float32],
        scale: float,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._form = own(top).offer(backend.form)
        self._kernels = backend.kernels("pixels.cu", self._form.type)
        self._name = "pixels_to_last" if self._form.channels_last else "pixels_to_planes"
        self._is_interleaved = is_interleaved
        self._means = backend.constants(mean_image if mean_image.size else means, np.float32)
        self._mean_size = (int(mean_image.shape[1]), int(mean_image.shape[2])) if mean_image.size else (0, 0)
        self._scale = np.float32(scale)
        # While one is read, the next batch is on its way into the other.
        self._rooms = (_Room(backend.device), _Room(backend.device))
        self._turn = 0
        self.implementation = "cuda"

    def forward(self, rows: NDArray[np.uint8], top: SyncedArray) -> None:
        self._backend.card.leaves_the_device("writes what the device shall read")
        self._turn = 1 - self._turn
        room = self._rooms[self._turn]
        sides = room.bring(rows.reshape(-1)), int(rows.shape[1]), int(self._is_interleaved), self._means
        settings = *self._mean_size, self._scale, write(top, form=self._form)
        self._kernels.packed(self._name, top.size, *top.shape[1:], *sides, *settings)
        room.is_read()

    def release(self) -> None:
        self._rooms[self._turn].release()


@final
class _Room:
    """A batch's bytes on the device, which come there beside what it computes."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._bytes: Buffer | None = None
        self._arrived: Mark | None = None
        self._free: Mark | None = None  # behind what read the last batch

    def bring(self, source: NDArray[np.uint8]) -> Buffer:
        """The bytes, for what is queued from now on."""
        if self._bytes is None or self._bytes.size != source.size:
            self._bytes = self._device.empty(source.size, np.uint8)
            self._free = self._device.mark()  # memory may come from what the main stream still reads
        self._arrived = self._device.copy_in(source, self._bytes, self._free)
        self._device.after(self._arrived)
        return self._bytes

    def is_read(self) -> None:
        """What reads the bytes is queued."""
        self._free = self._device.mark()

    def release(self) -> None:
        """Return when the last source has been read."""
        if self._arrived is not None:
            self._arrived.wait()
