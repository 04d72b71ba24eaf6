"""Kernels of one .cu file, launched on arrays, buffers and plain numbers."""

from __future__ import annotations

from typing import Any, Final, final

import numpy as np

from dtrain.kernels.cuda.array import Access, Argument
from dtrain.kernels.cuda.device import Buffer, Device, Function
from dtrain.kernels.cuda.form import TYPE_OF, ValueType

THREADS: Final = 256
MOST_BLOCKS: Final = 4096  # a grid strides over what is left: enough to fill any card several times
PACK_BYTES: Final = 16  # as in kernel.cuh
NULL: Final = np.uintp(0)


@final
class Kernels:
    """Compiled on first use, for 32-bit indices and, where an array is too large for them, for 64-bit ones.

    `dtype` is the kernels' Real, `values` their Value. An int among the arguments is passed as the kernel's
    Index, a float as its Real, None as a null pointer, a NumPy scalar as it is.
    """

    def __init__(self, device: Device, file: str, dtype: np.dtype[Any], values: ValueType) -> None:
        self._device = device
        self._file = file
        self._real = dtype.type
        real = TYPE_OF[dtype]
        self._defines: tuple[str, ...] = (f"REAL={real.c_name}",)
        if values is not real:
            self._defines += (f"VALUE={values.c_name}",)
        self.together = PACK_BYTES // values.storage.itemsize
        """Values that a thread reads and writes at once, where they lie side by side."""
        self._functions: dict[tuple[str, bool], Function] = {}

    def each(self, name: str, count: int, *args: Argument) -> None:
        """One thread for each of `count` elements, or for several; `count` is the kernel's first argument."""
        if count:
            self.launch(name, (blocks(count),), (THREADS,), count, *args)

    def packed(self, name: str, count: int, *args: Argument) -> None:
        """As `each`, for kernels whose threads take PACK_BYTES of values at once."""
        if count:
            threads = -(-count // self.together)
            self.launch(name, (blocks(threads),), (THREADS,), count, *args)

    def rows(self, name: str, count: int, width: int, *args: Argument) -> None:
        """One block for each of `count` rows of `width` values; the two come first among the arguments."""
        if count:
            self.launch(name, (min(count, MOST_BLOCKS),), (row_threads(width),), count, width, *args)

    def launch(
        self,
        name: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *args: Argument,
        shared_bytes: int = 0,
    ) -> None:
        """Bring what is read up to date, run, mark what was written."""
        values = [arg.buffer() if isinstance(arg, Access) else arg for arg in args]
        limit = self._device.index_limit
        wide = any(self._extent(value) > limit for value in values)
        index = np.int64 if wide else np.int32
        passed = [self._scalar(value, index) for value in values]
        self._function(name, wide)(grid, block, passed, shared_bytes)
        for arg in args:
            if isinstance(arg, Access) and arg.writes:
                arg.written()

    @staticmethod
    def _extent(value: Any) -> int:
        if isinstance(value, int):
            return abs(value)
        if value is None or isinstance(value, (float, np.generic)):
            return 0
        return int(value.size)

    def _scalar(self, value: Any, index: type[np.signedinteger[Any]]) -> Buffer | np.generic:
        if value is None:
            return NULL
        if isinstance(value, int):
            return index(value)
        if isinstance(value, float) and not isinstance(value, np.generic):
            return self._real(value)
        return value

    def _function(self, name: str, wide: bool) -> Function:
        found = self._functions.get((name, wide))
        if found is None:
            defines = (*self._defines, "WIDE_INDEX") if wide else self._defines
            found = self._functions[name, wide] = self._device.function(self._file, name, defines)
        return found


def blocks(count: int) -> int:
    """Of THREADS threads, so that each element has one, up to a grid that fills any card."""
    return min(-(-count // THREADS), MOST_BLOCKS)


def row_threads(width: int) -> int:
    """Whole warps, as many threads as a row has values, at most THREADS."""
    return min(-(-max(width, 1) // 32) * 32, THREADS)
