"""Batches of 8-bit images as the operator Pixels takes them."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from tests.kernels.cuda.bench import Bench, Run

HEAD = 4  # int32


@final
class Batch:
    """Random images (N, C, h, w), half of them mirrored, and what is taken from them.

    mean: "channels", or "image" for one that is larger by some rows and columns than the images.
    """

    def __init__(
        self, shape: tuple[int, int, int, int], *, is_interleaved: bool, mean: str = "channels"
    ) -> None:
        n, c, h, w = shape
        rng = np.random.default_rng(5)
        self.shape = shape
        self.is_interleaved = is_interleaved
        self.images = rng.integers(0, 256, shape, np.uint8)
        self.mirrored = rng.integers(0, 2, n).astype(bool)
        self.tops, self.lefts = rng.integers(0, 4, n), rng.integers(0, 6, n)
        self.means = (rng.random(c) * 255).astype(np.float32)
        self.mean_image = np.empty((0, 0, 0), np.float32)
        if mean == "image":
            self.mean_image = (rng.random((c, h + 3, w + 5)) * 255).astype(np.float32)
        self.scale = 1 / 59

    def rows(self, backend: Backend) -> NDArray[np.uint8]:
        """In memory of the backend, with rubbish where nobody shall look."""
        n, c, h, w = self.shape
        size = -(-c * h * w // 16) * 16 + 16
        rows: NDArray[np.uint8] = backend.host_memory(n * size, np.uint8).reshape(n, size)
        rows[...] = 0xEE
        heads = rows[:, : HEAD * 4].view(np.int32)
        heads[:, 0], heads[:, 1], heads[:, 2] = self.mirrored, self.tops, self.lefts
        pixels = self.images.transpose(0, 2, 3, 1) if self.is_interleaved else self.images
        rows[:, HEAD * 4 : HEAD * 4 + c * h * w] = pixels.reshape(n, -1)
        return rows

    def operator(self, ops: Any, top: SyncedArray) -> Any:
        return ops.Pixels(self.is_interleaved, self.means, self.mean_image, self.scale, top)

    def expected(self) -> NDArray[np.float32]:
        """What the host's transformer gives: (pixel - mean) * scale in float32, then mirrored."""
        _, _, h, w = self.shape
        found = np.empty(self.shape, np.float32)
        for n, image in enumerate(self.images):
            mean = self.means[:, None, None]
            if self.mean_image.size:
                mean = self.mean_image[:, self.tops[n] : self.tops[n] + h, self.lefts[n] : self.lefts[n] + w]
            result = (image.astype(np.float32) - mean) * np.float32(self.scale)
            found[n] = result[:, :, ::-1] if self.mirrored[n] else result
        return found


def pixels(shape: tuple[int, int, int, int], is_interleaved: bool, mean: str) -> Run:
    """A row of the operators' table."""

    def run(b: Bench) -> None:
        batch, usual = Batch(shape, is_interleaved=is_interleaved, mean=mean), b.backend.memory_format
        for memory_format in (usual, "channels_last"):
            b.backend.memory_format = memory_format
            top = b.room(*shape)
            operator = batch.operator(b.ops, top)
            operator.forward(batch.rows(b.backend), top)
            b.told(f"y, {memory_format}", top)
            operator.release()
        b.backend.memory_format = usual

    return run
