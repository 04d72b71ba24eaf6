"""The part of CuPy that a device uses, on NumPy: shows that calls, their order and their numbers are right.

Kernels run by the CPU; streams, events and captures are simulated (numpy_streams.py), products are computed
from their definition (numpy_cublas_lt.py). Memory that nobody holds any more is overwritten, as its next user
would: device memory in the order of the stream, pinned memory at once. What CuPy itself does with these calls
only a card can show (tests/gpu).
"""

from __future__ import annotations

import ctypes
import importlib
import re
import weakref
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, final

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray
from nvmath import CudaDataType
from nvmath.bindings import cublas

from dtrain.kernels.cuda.device import SOURCES
from tests.kernels.cuda.cpu_device import CpuFunction, files, guarded, library
from tests.kernels.cuda.numpy_cublas_lt import CublasLt
from tests.kernels.cuda.numpy_streams import CUDADriverError, CUDARuntimeError, Event, Machine, Stream

GIB = 1 << 30
NO_CUDNN = "No module named 'cudnn'"
ROOM = 512  # CuPy rounds allocations up to as many bytes, and aligns them so


class OutOfMemoryError(MemoryError):
    """What CuPy raises."""


class CompileException(Exception):
    """What CuPy raises."""


class CUBLASError(RuntimeError):
    """What CuPy raises."""


class Owner:
    """Who holds a piece of device memory."""


@final
class MemoryPointer:
    """Where an array lies; what is queued knows the memory, but does not hold it."""

    def __init__(self, machine: Machine, values: NDArray[Any]) -> None:
        self._machine = machine
        self._values = values
        self.ptr = values.ctypes.data if values.size else 0

    def copy_from_host_async(self, source: int, size: int, stream: Stream | None = None) -> None:
        self._queue(lambda: ctypes.memmove(self.ptr, source, size), stream, size, with_host=True)

    def copy_to_host_async(self, target: int, size: int, stream: Stream | None = None) -> None:
        self._queue(lambda: ctypes.memmove(target, self.ptr, size), stream, size, with_host=True)

    def copy_from_device_async(self, source: MemoryPointer, size: int, stream: Stream | None = None) -> None:
        self._queue(lambda: ctypes.memmove(self.ptr, source.ptr, size), stream, size)

    def memset_async(self, value: int, size: int, stream: Stream | None = None) -> None:
        self._queue(lambda: ctypes.memset(self.ptr, value, size), stream, size)

    def _queue(
        self, call: Callable[[], Any], stream: Stream | None, size: int, *, with_host: bool = False
    ) -> None:
        assert size <= self._values.nbytes, "a copy stays within its array"
        self._machine.fail("copy")
        self._machine.queue(stream, call, with_host=with_host)


@final
class Array:
    """A 1-D array whose values only copies, kernels and products reach."""

    def __init__(self, machine: Machine, values: NDArray[Any], owner: Owner) -> None:
        self._machine = machine
        self._owner = owner
        self.values = values
        self.data = MemoryPointer(machine, values)
        self.size, self.dtype, self.nbytes = values.size, values.dtype, values.nbytes

    def __getitem__(self, part: slice) -> Array:
        return Array(self._machine, self.values[part], self._owner)

    def view(self, dtype: DTypeLike) -> Array:
        return Array(self._machine, self.values.view(dtype), self._owner)


@final
class Pool:
    """CuPy's default memory pool, of a card with so much memory."""

    def __init__(self, machine: Machine, total: int) -> None:
        self._machine = machine
        self._used = 0
        self.total = total
        self.limit = 0

    def empty(self, count: int, dtype: DTypeLike) -> Array:
        kind = np.dtype(dtype)
        nbytes = -(-count * kind.itemsize // ROOM) * ROOM
        if self._used + nbytes > (self.limit or self.total):
            raise OutOfMemoryError(f"Out of memory allocating {nbytes:,} bytes")
        self._used += nbytes
        base = guarded(count * kind.itemsize + ROOM, np.dtype(np.uint8))
        start = -base.ctypes.data % ROOM
        whole = base[start : start + count * kind.itemsize]
        owner = Owner()
        weakref.finalize(owner, self._free, whole, nbytes)
        return Array(self._machine, whole.view(kind), owner)

    def _free(self, whole: NDArray[Any], nbytes: int) -> None:
        self._used -= nbytes
        self._machine.freed.append(lambda: whole.fill(0xFF))

    def used_bytes(self) -> int:
        return self._used

    def free_bytes(self) -> int:
        return 0

    def get_limit(self) -> int:
        return self.limit


@final
class PinnedPool:
    """Pinned memory, which is handed out again as soon as nobody holds it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._free: dict[int, list[NDArray[np.uint8]]] = {}

    def allocate(self, size: int) -> Any:
        self._machine.fail("pinned")
        rounded = 1 << max(9, (size - 1).bit_length())
        free = self._free.setdefault(rounded, [])
        block = free.pop() if free else np.empty(rounded, np.uint8)
        block.fill(0xFF)
        memory = (ctypes.c_byte * rounded).from_address(block.ctypes.data)
        weakref.finalize(memory, self._release, block)
        return memory

    def _release(self, block: NDArray[np.uint8]) -> None:
        block.fill(0xFF)
        self._free[block.size].append(block)


@final
class RawKernel:
    """A kernel of a module."""

    def __init__(self, machine: Machine, file: str, name: str, defines: tuple[str, ...]) -> None:
        self._machine = machine
        self._kernel = CpuFunction(library(file, defines), file, name, descending=False)
        self.max_dynamic_shared_size_bytes = 48 << 10

    @property
    def kernel(self) -> Any:
        return self._launch

    def _launch(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Any,
        shared_mem: int = 0,
        stream: Stream | None = None,
    ) -> None:
        assert isinstance(grid, tuple)
        assert isinstance(block, tuple)
        self._machine.fail("launch")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE")
        passed = [arg.values if isinstance(arg, Array) else arg for arg in args]
        self._machine.queue(stream, lambda: self._kernel(grid, block, passed, shared_mem))


@final
class RawModule:
    """A file's kernels, found by its text as CuPy is given it."""

    def __init__(self, machine: Machine, *, code: str, options: tuple[str, ...]) -> None:
        self._machine = machine
        (self.file,) = (file for file in files() if (SOURCES / file).read_text() == code)
        assert "-std=c++17" in options
        assert f"-I{SOURCES}" in options
        assert any(option.startswith("-DHEADERS=") for option in options)
        self.defines = tuple(option[2:] for option in options if re.match("-D(?!HEADERS)", option))

    def get_function(self, name: str) -> RawKernel:
        self._machine.fail("compile")
        return RawKernel(self._machine, self.file, name, self.defines)


def strided_gemm(machine: Machine, kind: DTypeLike) -> Any:
    """C_i = alpha op(A_i) op(B_i) + beta C_i, column-major with leading dimensions."""
    itemsize = np.dtype(kind).itemsize

    def matrix(pointer: int, rows: int, columns: int, leading: int) -> Any:
        assert leading >= max(1, rows)
        whole = np.ctypeslib.as_array((ctypes.c_byte * (leading * columns * itemsize)).from_address(pointer))
        return whole.view(kind).reshape(columns, leading).T[:rows]

    def scalar(pointer: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_byte * itemsize).from_address(pointer)).view(kind)[0].copy()

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
        if machine.current().is_capturing():
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")
        factors = scalar(alpha), scalar(beta)

        def multiply() -> None:
            for i in range(count):
                left = matrix(a + i * stride_a * itemsize, *((k, m) if transa else (m, k)), lda)
                right = matrix(b + i * stride_b * itemsize, *((n, k) if transb else (k, n)), ldb)
                out = matrix(c + i * stride_c * itemsize, m, n, ldc)
                value = factors[0] * ((left.T if transa else left) @ (right.T if transb else right))
                out[...] = value if factors[1] == 0 else value + factors[1] * out

        machine.queue(None, multiply)

    return run


@final
class Cupy:
    """A stand-in for a machine's `import cupy`, and for the libraries beside it.

    `fault` is what its driver says when it is asked for cards; `nvmath` and `cublas` are what imports of
    nvmath-python and of CuPy's cuBLAS raise.
    """

    def __init__(
        self,
        *,
        cards: int = 1,
        fault: str = "",
        capability: str = "90",
        memory: int = 80 * GIB,
        copies_first: bool = False,
        nvmath: Exception | None = None,
        cublas: Exception | None = None,
    ) -> None:
        self._cards = cards
        self._fault = fault
        self._missing = {"nvmath": nvmath, "cupy_backends": cublas, "cudnn": ModuleNotFoundError(NO_CUDNN)}
        self.machine = machine = Machine(copies_first=copies_first)
        self.pool = Pool(machine, memory)
        self.cublas_lt = CublasLt(machine)
        self.math_modes: list[int] = []
        self.empty = self.pool.empty
        self.get_default_memory_pool = lambda: self.pool
        self.RawModule = lambda *, code, options: RawModule(machine, code=code, options=options)
        self.__version__ = "14.2.0"
        runtime = SimpleNamespace(
            getDeviceCount=self._count,
            CUDARuntimeError=CUDARuntimeError,
            getDeviceProperties=lambda number: {
                "name": b"NumPy",
                "totalGlobalMem": 80 * GIB,
                "major": int(capability[:-1]),
                "minor": int(capability[-1]),
            },
            runtimeGetVersion=lambda: 13020,
            driverGetVersion=lambda: 13030,
            memGetInfo=lambda: (self.pool.total - self.pool.used_bytes(), self.pool.total),
            streamEndCapture=lambda address: id(machine.streams[address].end_capture()),
            graphDestroy=lambda graph: None,
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=CUDADriverError),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=SimpleNamespace(CompileException=CompileException),
            Stream=lambda *, non_blocking=False: Stream(machine, non_blocking=non_blocking),
            Event=lambda *, disable_timing=False: Event(machine, disable_timing=disable_timing),
            Device=lambda number=None: SimpleNamespace(
                use=partial(setattr, machine.here, "card", machine.here.card if number is None else number),
                compute_capability=capability,
            ),
            alloc_pinned_memory=PinnedPool(machine).allocate,
            device=SimpleNamespace(get_cublas_handle=lambda: 1),
        )

    def _count(self) -> int:
        if self._fault:
            raise CUDARuntimeError(self._fault)
        return self._cards

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Cupy:
        """Let imports by name find this."""
        real = importlib.import_module
        blas = SimpleNamespace(
            sgemmStridedBatched=strided_gemm(self.machine, np.float32),
            dgemmStridedBatched=strided_gemm(self.machine, np.float64),
            setMathMode=lambda handle, mode: self.math_modes.append(mode),
            CUBLASError=CUBLASError,
        )
        known = {
            "cupy": self,
            "cupy.cuda.nccl": SimpleNamespace(available=True, get_version=lambda: 22703),
            "cupy_backends.cuda.libs.cublas": blas,
            "nvmath": SimpleNamespace(CudaDataType=CudaDataType),
            "nvmath.bindings.cublas": cublas,
            "nvmath.bindings.cublasLt": self.cublas_lt,
        }

        def find(name: str, package: str | None = None) -> Any:
            fault = self._missing.get(name.split(".")[0])
            if fault is not None:
                raise fault
            return known[name] if name in known else real(name, package)

        monkeypatch.setattr(importlib, "import_module", find)
        return self
