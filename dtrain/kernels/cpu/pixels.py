"""Images of 8 bits as they were decoded, made into a batch: mirror, mean and scale."""

from __future__ import annotations

from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend

HEAD_BYTES: Final = 16
"""What precedes an image's pixels: four int32, of which the last is not used."""


@final
class Pixels:
    """rows (N, bytes) -> top (N, C, h, w), computed in float32 as (pixel - mean) * scale.

    A row holds int32 `mirrored`, `top` and `left`, from byte 16 on the pixels, and bytes that make its length
    a multiple of 16. The pixels are (h, w, C) if they are interleaved, or else (C, h, w). `means` (C,) counts
    where the mean image (C, H, W) is empty; that is cut at (top, left), and the result is mirrored.
    """

    def __init__(
        self,
        backend: Backend,
        is_interleaved: bool,
        means: NDArray[np.float32],
        mean_image: NDArray[np.float32],
        scale: float,
        top: SyncedArray,
    ) -> None:
        self._is_interleaved = is_interleaved
        self._means, self._mean_image, self._scale = means, mean_image, np.float32(scale)
        self.implementation = "numpy"

    def forward(self, rows: NDArray[np.uint8], top: SyncedArray) -> None:
        """rows: memory from the backend's `host_memory`, which must not change until `release` returns."""
        _, c, h, w = top.shape
        y = top.plain_overwrite()
        for row, image in zip(rows, y, strict=True):
            mirrored, upper, left, _ = row[:HEAD_BYTES].view(np.int32)
            pixels = row[HEAD_BYTES : HEAD_BYTES + c * h * w]
            planes = (
                pixels.reshape(h, w, c).transpose(2, 0, 1)
                if self._is_interleaved
                else pixels.reshape(c, h, w)
            )
            mean = self._means[:, None, None]
            if self._mean_image.size:
                mean = self._mean_image[:, upper : upper + h, left : left + w]
            result = (planes.astype(np.float32) - mean) * self._scale
            image[...] = result[:, :, ::-1] if mirrored else result

    def release(self) -> None:
        """Return when the rows of the last batch have been read."""
