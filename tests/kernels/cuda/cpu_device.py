"""A device that runs the .cu files on the CPU, so that operators and launchers are tested as they are.

g++ compiles a file once for each set of macros; every CUDA thread is a fiber (cuda_on_cpu.h). Each buffer
lies between guards, which are looked at after every launch, and starts out as NaN. Arguments are checked
against the kernel's parameters by kind and size, as no driver would.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.device import SOURCES, Buffer, Device, Function, Mark, Product, Replay
from dtrain.kernels.cuda.form import TYPE_OF, ValueType, to_floats

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
CACHE = Path(tempfile.gettempdir(), f"dtrain-cuda-on-cpu-{os.getuid()}")
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(')
GUARD_BYTES = 256
GUARD = 0xA5
ELEMENTS = {"f4": "f", "f8": "d", "i4": "i", "u4": "i", "i8": "q", "u8": "q", "u2": "h", "u1": "b"}

ran: set[tuple[str, str]] = set()
"""(file, kernel) of every launch in this process, for the table of what was run."""


class KernelError(Exception):
    """A kernel did what a GPU would not forgive."""


def kernels_of(file: str) -> list[str]:
    """Names of the kernels in a .cu file."""
    return KERNEL.findall((SOURCES / file).read_text())


def files() -> list[str]:
    """All .cu files."""
    return sorted(path.name for path in SOURCES.glob("*.cu"))


def compiled(source: Path, defines: tuple[str, ...]) -> ctypes.CDLL:
    """A .cu file as a library of functions run_NAME."""
    names = KERNEL.findall(source.read_text())
    assert names, f"{source} must hold kernels of the form {KERNEL.pattern}"
    unit = "\n".join(
        [f'#include "{HEADER}"', f'#include "{source}"', *(f"CPU_EXPORT({name})" for name in names)]
    )
    options = [
        "-std=c++17",
        "-O1",
        "-fPIC",
        "-shared",
        "-w",
        "-ffp-contract=off",
        *(f"-D{define}" for define in defines),
    ]
    parts = [unit, *options, HEADER.read_text(), source.read_text()]
    parts += [path.read_text() for path in sorted(SOURCES.glob("*.cuh"))]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    library = CACHE / f"{source.stem}-{digest}.so"
    if not library.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            text, made = Path(folder, f"{source.stem}.cpp"), Path(folder, "made.so")
            text.write_text(unit)
            command = ["g++", *options, str(text), "-o", str(made)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except FileNotFoundError:
                raise KernelError("g++ must be installed to run CUDA kernels on the CPU, got none") from None
            if done.returncode:
                raise KernelError(f"g++ refuses {source.name}:\n{done.stderr[:6000]}")
            made.rename(library)
    return ctypes.CDLL(str(library))


@functools.cache
def library(file: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    return compiled(SOURCES / file, defines)


def guarded(count: int, kind: np.dtype[Any]) -> Buffer:
    """A 1-D array of NaN (or of the bytes 0xff) whose base has guards at both ends."""
    base = np.full(count * kind.itemsize + 2 * GUARD_BYTES, GUARD, np.uint8)
    base[GUARD_BYTES : base.size - GUARD_BYTES] = 0xFF
    return base[GUARD_BYTES : base.size - GUARD_BYTES].view(kind)


def guards_hold(buffer: Buffer) -> bool:
    base = buffer
    while base.base is not None:
        base = base.base
    return bool((base[:GUARD_BYTES] == GUARD).all() and (base[-GUARD_BYTES:] == GUARD).all())


@final
class CpuFunction:
    """One kernel."""

    def __init__(self, lib: ctypes.CDLL, file: str, name: str, *, descending: bool) -> None:
        self.name = name
        self._file = file
        self._lib = lib
        lib.cpu_error.restype = ctypes.c_char_p
        about = getattr(lib, f"parameters_of_{name}")
        about.restype = ctypes.c_char_p
        self._kinds, self._elements = about().decode().split(" ")
        self._run = getattr(lib, f"run_{name}")
        self._order = ctypes.c_int(descending)

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Buffer | np.generic],
        shared_bytes: int,
    ) -> None:
        assert shared_bytes == 0, "dynamic shared memory is not simulated"
        if len(args) != len(self._kinds):
            raise KernelError(f"{self.name} takes {len(self._kinds)} arguments, got {len(args)}")
        values = [self._value(i, arg) for i, arg in enumerate(args)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        ran.add((self._file, self.name))
        if self._run(extent(grid), extent(block), pointers, self._order):
            raise KernelError(f"{self.name}: {self._lib.cpu_error().decode()}")
        for arg in args:
            if isinstance(arg, np.ndarray) and not guards_hold(arg):
                raise KernelError(f"{self.name} wrote outside of a buffer")

    def _value(self, i: int, arg: Any) -> Any:
        kind, element = self._kinds[i], self._elements[i]
        told = f"{self.name}: argument {i}"
        if kind in "rw":
            if isinstance(arg, np.ndarray):
                given = ELEMENTS[arg.dtype.str[1:]]
                if given != element or not arg.flags.c_contiguous:
                    raise KernelError(f"{told} must point to {element}, got {arg.dtype}")
                return ctypes.c_void_p(arg.ctypes.data)
            if not isinstance(arg, np.uintp) or arg:
                raise KernelError(f"{told} must be a buffer or null, got {arg!r}")
            return ctypes.c_void_p(0)
        if not isinstance(arg, np.generic):
            raise KernelError(f"{told} must be a NumPy scalar, got {type(arg)}")
        given = {"f4": "f", "f8": "d", "i4": "i", "u4": "i", "i8": "q", "u8": "q"}.get(arg.dtype.str[1:])
        if given != kind:
            raise KernelError(f"{told} must be of kind {kind}, got {arg.dtype}")
        return (ctypes.c_char * arg.nbytes).from_buffer_copy(arg.tobytes())


def extent(dims: tuple[int, ...]) -> Any:
    return (ctypes.c_uint * 3)(*(*dims, 1, 1)[:3])


@final
class Passed(Mark):
    """Nothing is ever queued."""

    def wait(self) -> None:
        """It is over."""

    @property
    def is_passed(self) -> bool:
        return True


@final
class Recorded(Replay):
    """What a capture kept: calls with the buffers and numbers that they had then."""

    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self._calls = calls

    def launch(self) -> None:
        for call in self._calls:
            call()


@final
class CpuDevice(Device):
    """`descending` runs a block's threads from last to first and indexes all arrays with 64 bits.

    A capture executes nothing and keeps the calls, as a card's does; what a card refuses then is refused.
    """

    def __init__(self, *, descending: bool = False, libraries: Mapping[str, Any] | None = None) -> None:
        self.descending = descending
        self._libraries = libraries or {}
        self.index_limit = -1 if descending else Device.index_limit
        self._captured: list[Callable[[], None]] | None = None

    def _queue(self, call: Callable[[], None]) -> None:
        if self._captured is None:
            call()
        else:
            self._captured.append(call)

    def _uncaptured(self, what: str) -> None:
        if self._captured is not None:
            raise KernelError(f"{what} cannot be captured")

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        return guarded(count, np.dtype(dtype))

    def host(self, count: int, dtype: DTypeLike) -> Plain:
        return np.frombuffer(bytearray(b"\xff" * (count * np.dtype(dtype).itemsize)), dtype)

    def upload(self, source: Plain, target: Buffer) -> None:
        self._uncaptured("upload")
        transfer(source, target)

    def download(self, source: Buffer, target: Plain) -> None:
        self._uncaptured("download")
        transfer(source, target)

    def send(self, source: NDArray[Any], target: Buffer) -> None:
        self._uncaptured("send")
        transfer(source, target)

    def mark(self) -> Passed:
        return Passed()

    def copy_in(self, source: NDArray[Any], target: Buffer, after: Mark | None) -> Passed:
        self._uncaptured("copy_in")
        transfer(source, target)
        return Passed()

    def copy_out(self, source: Buffer, target: NDArray[Any]) -> Passed:
        self._uncaptured("copy_out")
        transfer(source, target)
        return Passed()

    def after(self, mark: Mark) -> None:
        """Everything is over at once."""

    def begin_capture(self) -> None:
        self._uncaptured("a capture")
        self._captured = []

    def end_capture(self) -> Recorded:
        assert self._captured is not None, "a capture ends that has begun"
        calls, self._captured = self._captured, None
        return Recorded(calls)

    def abandon_capture(self) -> None:
        self._captured = None

    @property
    def is_capturing(self) -> bool:
        return self._captured is not None

    def copy(self, source: Buffer, target: Buffer) -> None:
        self._queue(lambda: transfer(source, target))

    def clear(self, target: Buffer) -> None:
        self._queue(lambda: target.view(np.uint8).fill(0))

    def function(self, file: str, name: str, defines: tuple[str, ...]) -> Function:
        kernel = CpuFunction(library(file, defines), file, name, descending=self.descending)

        def run(
            grid: tuple[int, ...],
            block: tuple[int, ...],
            args: Sequence[Buffer | np.generic],
            shared_bytes: int,
        ) -> None:
            self._queue(lambda: kernel(grid, block, args, shared_bytes))

        return run

    def gemm(self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None = None) -> None:
        def run() -> None:
            with np.errstate(all="ignore"):  # a card says nothing of infinities
                multiply(product, a, b, c, bias)

        self._queue(run)

    def library(self, name: str) -> Any | None:
        return self._libraries.get(name)

    def call(self, queue: Callable[[Sequence[int]], None], buffers: Sequence[Buffer]) -> None:
        def run() -> None:
            queue([int(buffer.ctypes.data) for buffer in buffers])
            if not all(map(guards_hold, buffers)):
                raise KernelError("a library wrote outside of a buffer")

        self._queue(run)

    @property
    def compute_capability(self) -> int:
        return 0

    def synchronize(self) -> None:
        """Nothing is queued."""

    def describe(self) -> str:
        return "CUDA kernels on the CPU"


def transfer(source: Any, target: Any) -> None:
    """A copy of equal sizes and types."""
    assert source.shape == target.shape
    assert source.dtype == target.dtype
    np.copyto(target, source)


def multiply(p: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None) -> None:
    """A product from its definition; of 16-bit numbers in float32, rounded once."""
    output = p.output or TYPE_OF[c.dtype]
    inputs = p.inputs or output
    for i in range(p.batch):
        x = to_floats(matrix(a, i * p.stride_a, p.m, p.k, p.transpose_a), inputs)
        y = to_floats(matrix(b, i * p.stride_b, p.k, p.n, p.transpose_b), inputs)
        out = matrix(c, i * p.stride_c, p.m, p.n, False)
        before = to_floats(out, output)
        value = (p.alpha * (x @ y)).astype(before.dtype)
        if p.beta:
            value = value + before.dtype.type(p.beta) * before
        if bias is not None:
            value = value + to_floats(bias, output)
        out[...] = from_floats(np.maximum(value, 0) if p.relu else value, output)


def from_floats(values: NDArray[Any], kind: ValueType) -> NDArray[Any]:
    """Numbers as a buffer of that type holds them."""
    if kind is ValueType.FLOAT16:
        return values.astype(np.float16).view(np.uint16)
    if kind is ValueType.BFLOAT16:
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
    return values.astype(kind.storage)


def matrix(buffer: Buffer, start: int, rows: int, columns: int, transposed: bool) -> Buffer:
    part = buffer[start : start + rows * columns]
    assert part.size == rows * columns, "a matrix lies within its buffer"
    return part.reshape(columns, rows).T if transposed else part.reshape(rows, columns)
