"""Arrays side by side along one axis of a larger one: blocks of consecutive values at a fixed distance."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Blocks:
    """The parts' shapes, equal except at `axis`."""

    def __init__(self, backend: CudaBackend, axis: int, shapes: Sequence[Shape]) -> None:
        self._kernels = backend.kernels("copies.cu")
        self._sizes = [prod(shape[axis:]) for shape in shapes]  # of one block
        self._stride = sum(self._sizes)

    def join(self, parts: Sequence[SyncedArray], whole: SyncedArray) -> None:
        """Fill the whole with all parts."""
        start = 0
        for part, size in zip(parts, self._sizes, strict=True):
            places = 0, size, start, self._stride
            self._kernels.each("copy_blocks", part.size, read(part), write(whole), size, *places)
            start += size

    def part(self, whole: SyncedArray, parts: Sequence[SyncedArray | None]) -> None:
        """Fill those parts that are wanted."""
        start = 0
        for part, size in zip(parts, self._sizes, strict=True):
            if part is not None:
                places = start, self._stride, 0, size
                self._kernels.each("copy_blocks", part.size, read(whole), write(part), size, *places)
            start += size
