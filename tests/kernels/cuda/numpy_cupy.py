"""The part of CuPy that a device uses, on NumPy: shows that calls, their order and their numbers are right.

Kernels run by the CPU. cuBLAS's product is column-major, computed from its definition. What CuPy itself
does with these calls only a card can show (tests/gpu).
"""

from __future__ import annotations

import ctypes
import re
from types import SimpleNamespace
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.kernels.cuda.device import SOURCES
from tests.kernels.cuda.cpu_device import CpuFunction, files, guarded, library


@final
class MemoryPointer:
    """Where an array lies."""

    def __init__(self, array: Any) -> None:
        self.ptr = array.ctypes.data

    def copy_from_host_async(self, source: int, size: int, stream: Any = None) -> None:
        ctypes.memmove(self.ptr, source, size)

    def copy_to_host_async(self, target: int, size: int, stream: Any = None) -> None:
        ctypes.memmove(target, self.ptr, size)

    def copy_from_device_async(self, source: MemoryPointer, size: int, stream: Any = None) -> None:
        ctypes.memmove(self.ptr, source.ptr, size)

    def memset_async(self, value: int, size: int, stream: Any = None) -> None:
        ctypes.memset(self.ptr, value, size)


@final
class Array:
    """A 1-D array whose values only copies and kernels reach."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.data = MemoryPointer(values)
        self.size, self.dtype, self.nbytes = values.size, values.dtype, values.nbytes

    def __getitem__(self, part: slice) -> Array:
        return Array(self.values[part])


@final
class Stream:
    def __init__(self, *, non_blocking: bool) -> None:
        self.waits = 0

    def use(self) -> Stream:
        return self

    def synchronize(self) -> None:
        self.waits += 1


class CUDARuntimeError(RuntimeError):
    """What CuPy raises."""


@final
class RawModule:
    """A file's kernels, found by its text as CuPy is given it."""

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        (self.file,) = (file for file in files() if (SOURCES / file).read_text() == code)
        assert "-std=c++17" in options
        assert f"-I{SOURCES}" in options
        assert any(option.startswith("-DHEADERS=") for option in options)
        self.defines = tuple(option[2:] for option in options if re.match("-D(?!HEADERS)", option))

    def get_function(self, name: str) -> Any:
        kernel = CpuFunction(library(self.file, self.defines), self.file, name, descending=False)

        def run(grid: Any, block: Any, args: tuple[Any, ...], *, shared_mem: int) -> None:
            kernel(grid, block, [arg.values if isinstance(arg, Array) else arg for arg in args], shared_mem)

        return run


def strided_gemm(kind: DTypeLike) -> Any:
    """C_i = alpha op(A_i) op(B_i) + beta C_i, column-major with leading dimensions."""
    itemsize = np.dtype(kind).itemsize

    def matrix(pointer: int, rows: int, columns: int, leading: int) -> Any:
        assert leading >= max(1, rows)
        whole = np.ctypeslib.as_array((ctypes.c_byte * (leading * columns * itemsize)).from_address(pointer))
        return whole.view(kind).reshape(columns, leading).T[:rows]

    def scalar(pointer: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_byte * itemsize).from_address(pointer)).view(kind)[0]

    def run(
        handle: int,
        transa: int,
        transb: int,
        m: int,
        n: int,
        k: int,
        alpha: int,
        a: int,
        lda: int,
        stride_a: int,
        b: int,
        ldb: int,
        stride_b: int,
        beta: int,
        c: int,
        ldc: int,
        stride_c: int,
        count: int,
    ) -> None:
        for i in range(count):
            left = matrix(a + i * stride_a * itemsize, *((k, m) if transa else (m, k)), lda)
            right = matrix(b + i * stride_b * itemsize, *((n, k) if transb else (k, n)), ldb)
            out = matrix(c + i * stride_c * itemsize, m, n, ldc)
            value = scalar(alpha) * ((left.T if transa else left) @ (right.T if transb else right))
            factor = scalar(beta)
            out[...] = value if factor == 0 else value + factor * out

    return run


CUBLAS = SimpleNamespace(
    sgemmStridedBatched=strided_gemm(np.float32), dgemmStridedBatched=strided_gemm(np.float64)
)


def module(*, cards: int = 1, fault: str = "") -> Any:
    """A stand-in for `import cupy` on a machine with this many cards, or whose driver has this fault."""

    def count() -> int:
        if fault:
            raise CUDARuntimeError(fault)
        return cards

    runtime = SimpleNamespace(
        getDeviceCount=count,
        CUDARuntimeError=CUDARuntimeError,
        getDeviceProperties=lambda number: {"name": b"NumPy", "totalGlobalMem": 80 << 30},
        runtimeGetVersion=lambda: 13020,
    )
    cuda = SimpleNamespace(
        runtime=runtime,
        Stream=Stream,
        Device=lambda number: SimpleNamespace(use=lambda: None),
        alloc_pinned_memory=lambda size: bytearray(b"\xff" * size),
        device=SimpleNamespace(get_cublas_handle=lambda: 1),
    )

    def empty(size: int, dtype: DTypeLike) -> Array:
        return Array(guarded(size, np.dtype(dtype)))

    return SimpleNamespace(cuda=cuda, empty=empty, RawModule=RawModule, __version__="14.2.0")
