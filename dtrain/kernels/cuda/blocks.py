"""Arrays side by side along one axis of a larger one: blocks of consecutive values at a fixed distance."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form

IMAGE_AXES = (0, 2, 3, 1)  # in memory, of images that have their channels last


@final
class Blocks:
    """The parts' shapes, equal except at `axis`; all arrays are taken in one form, or the base form."""

    def __init__(
        self, backend: CudaBackend, axis: int, shapes: Sequence[Shape], form: Form | None = None
    ) -> None:
        self._form = form or Form(backend.card.real)
        self._kernels = backend.kernels("copies.cu", self._form.type)
        if self._form.channels_last:
            shapes = [tuple(shape[i] for i in IMAGE_AXES) for shape in shapes]
            axis = IMAGE_AXES.index(axis)
        self._sizes = [prod(shape[axis:]) for shape in shapes]  # of one block
        self._stride = sum(self._sizes)

    def join(self, parts: Sequence[SyncedArray], whole: SyncedArray) -> None:
        """Fill the whole with all parts."""
        start = 0
        for part, size in zip(parts, self._sizes, strict=True):
            sides = read(part, form=self._form), write(whole, form=self._form)
            places = 0, size, start, self._stride
            self._kernels.packed("copy_blocks", part.size, *sides, size, *places)
            start += size

    def part(self, whole: SyncedArray, parts: Sequence[SyncedArray | None]) -> None:
        """Fill those parts that are wanted."""
        start = 0
        for part, size in zip(parts, self._sizes, strict=True):
            if part is not None:
                sides = read(whole, form=self._form), write(part, form=self._form)
                places = start, self._stride, 0, size
                self._kernels.packed("copy_blocks", part.size, *sides, size, *places)
            start += size
