"""Arrays side by side along one axis of a larger one: blocks of consecutive values at a fixed distance."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final, final

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.cuda.array import Access, maybe, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form

AT_ONCE: Final = 4  # parts, as in copies.cu
IMAGE_AXES: Final = (0, 2, 3, 1)  # in memory, of images that have their channels last


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
        self._rows = prod(shapes[0][:axis])
        self._sizes = [prod(shape[axis:]) for shape in shapes]  # of one block
        self._stride = sum(self._sizes)

    def join(self, parts: Sequence[SyncedArray], whole: SyncedArray) -> None:
        """Fill the whole with all parts."""
        result = write(whole, form=self._form)
        self._run("join_blocks", result, [read(part, form=self._form) for part in parts])

    def part(self, whole: SyncedArray, parts: Sequence[SyncedArray | None]) -> None:
        """Fill those parts that are wanted."""
        given = read(whole, form=self._form)
        self._run("part_blocks", given, [maybe(write, part, self._form) for part in parts])

    def _run(self, name: str, whole: Access, parts: Sequence[Access | None]) -> None:
        start = 0
        for i in range(0, len(self._sizes), AT_ONCE):
            some, sizes = list(parts[i : i + AT_ONCE]), self._sizes[i : i + AT_ONCE]
            rest = AT_ONCE - len(some)
            count = self._rows * sum(sizes)
            if any(part is not None for part in some):
                places = start, self._stride
                self._kernels.packed(name, count, whole, *places, *some, *[None] * rest, *sizes, *[0] * rest)
            start += sum(sizes)
