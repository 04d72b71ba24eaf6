"""A card through CuPy: memory pools, kernels compiled by NVRTC for the card on first use, cuBLAS.

CuPy is imported when a device is made, never before, so that everything else works without it.

cuBLAS through CuPy cannot be captured into a graph, since it sets the handle's stream at every call. The
routes that can be are cuBLASLt through nvmath-python and a matmul graph of cuDNN Frontend; they would take
the place of `gemm` alone.
"""

from __future__ import annotations

import importlib
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError
from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.device import SOURCES, Buffer, Device, Function, Mark, Product, Replay

LEAST_SPARE_BYTES: Final = 4096


def load() -> Any:
    """CuPy, or a BackendError that says how to get it."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise BackendError(
            f"GPU: CuPy must be installed, got {error}; pip install 'dtrain[cuda12]', or 'dtrain[cuda13]' "
            f"for a driver of CUDA 13, or pass -cpu"
        ) from None


def count() -> int:
    """Number of cards, at least 1; BackendError where there is none to use."""
    cupy = load()
    try:
        found = int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(
            f"GPU: a card with a working driver must be there, got {error}; `nvidia-smi` shows what the "
            f"driver sees; pass -cpu to compute without"
        ) from None
    if not found:
        raise BackendError("GPU: at least 1 card must be visible, got 0; pass -cpu to compute without")
    return found


def _event_of(mark: Mark) -> Any:
    assert isinstance(mark, CupyMark), "a mark is of its device"
    return mark.event


@final
class CupyFunction:
    """One kernel of a module."""

    def __init__(self, kernel: Any, keep: Callable[..., None]) -> None:
        self._kernel = kernel
        self._keep = keep

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Buffer | np.generic],
        shared_bytes: int,
    ) -> None:
        self._keep(*args)
        self._kernel(grid, block, tuple(args), shared_mem=shared_bytes)


@final
class CupyMark(Mark):
    """An event of a stream."""

    def __init__(self, event: Any) -> None:
        self.event = event

    def wait(self) -> None:
        self.event.synchronize()

    @property
    def is_passed(self) -> bool:
        return bool(self.event.done)


@final
class CupyReplay(Replay):
    """A CUDA graph, and what its launches point to."""

    def __init__(self, graph: Any, stream: Any, keep: list[object]) -> None:
        self._graph = graph
        self._stream = stream
        self._keep = keep

    def launch(self) -> None:
        self._graph.launch(self._stream)


@final
class CupyDevice(Device):
    """Card `number`, which becomes the calling thread's current one; the stream likewise."""

    def __init__(self, number: int) -> None:
        self.number = number
        found = count()
        if not 0 <= number < found:
            raise BackendError(f"GPU: the card's number must be in [0, {found}), got {number}")
        self._cupy = load()
        self._cupy.cuda.Device(number).use()
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        self._stream.use()
        self._copies = self._cupy.cuda.Stream(non_blocking=True)
        self._sent: deque[tuple[Any, NDArray[Any]]] = deque()  # small copies under way, oldest first
        self._spare: list[NDArray[Any]] = []  # pinned memory for them
        self._kept: list[object] | None = None  # what the launches of the present capture point to
        cublas: Any = importlib.import_module("cupy_backends.cuda.libs.cublas")
        self._products = {"f": cublas.sgemmStridedBatched, "d": cublas.dgemmStridedBatched}
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        return self._cupy.empty(count, dtype)

    def host(self, count: int, dtype: DTypeLike) -> Plain:
        kind = np.dtype(dtype)
        memory = self._cupy.cuda.alloc_pinned_memory(max(count * kind.itemsize, 1))
        return np.frombuffer(memory, kind, count)

    def upload(self, source: Plain, target: Buffer) -> None:
        self._refuse_in_capture("an upload")
        if target.size:
            assert source.nbytes == target.nbytes, "a copy keeps size and type"
            target.data.copy_from_host_async(source.ctypes.data, source.nbytes, self._stream)
            self._stream.synchronize()

    def download(self, source: Buffer, target: Plain) -> None:
        self._refuse_in_capture("a download")
        if source.size:
            assert source.nbytes == target.nbytes, "a copy keeps size and type"
            source.data.copy_to_host_async(target.ctypes.data, target.nbytes, self._stream)
        self._stream.synchronize()

    def send(self, source: NDArray[Any], target: Buffer) -> None:
        self._refuse_in_capture("numbers for the device")
        while self._sent and self._sent[0][0].done:
            self._spare.append(self._sent.popleft()[1])
        values = np.ascontiguousarray(source).reshape(-1).view(np.uint8)
        room: Any = next((spare for spare in self._spare if spare.size >= values.size), None)
        if room is None:
            room = self.host(max(values.size, LEAST_SPARE_BYTES), np.uint8)
        else:
            self._spare = [spare for spare in self._spare if spare is not room]
        room[: values.size] = values
        target.data.copy_from_host_async(room.ctypes.data, values.size, self._stream)
        self._sent.append((self._event(self._stream), room))

    def mark(self) -> CupyMark:
        return CupyMark(self._event(self._stream))

    def copy_in(self, source: NDArray[Any], target: Buffer, after: Mark | None) -> CupyMark:
        self._refuse_in_capture("a copy beside")
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        if after is not None:
            self._copies.wait_event(_event_of(after))
        target.data.copy_from_host_async(source.ctypes.data, source.nbytes, self._copies)
        return CupyMark(self._event(self._copies))

    def copy_out(self, source: Buffer, target: NDArray[Any]) -> CupyMark:
        self._refuse_in_capture("a copy beside")
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        self._copies.wait_event(self._event(self._stream))
        source.data.copy_to_host_async(target.ctypes.data, target.nbytes, self._copies)
        return CupyMark(self._event(self._copies))

    def after(self, mark: Mark) -> None:
        self._stream.wait_event(_event_of(mark))

    def _event(self, stream: Any) -> Any:
        event = self._cupy.cuda.Event(disable_timing=True)
        stream.record(event)
        return event

    def _refuse_in_capture(self, what: str) -> None:
        if self._kept is not None:
            raise BackendError(f"CUDA graph: what is captured must stay on the device, got {what}")

    def begin_capture(self) -> None:
        self._refuse_in_capture("a second capture")
        self._kept = []
        self._stream.begin_capture()

    def end_capture(self) -> CupyReplay:
        assert self._kept is not None, "a capture ends that has begun"
        graph = self._stream.end_capture()
        kept, self._kept = self._kept, None
        graph.upload(self._stream)
        return CupyReplay(graph, self._stream, kept)

    def abandon_capture(self) -> None:
        self._kept = None
        try:
            self._stream.end_capture()
        except self._cupy.cuda.runtime.CUDARuntimeError:
            self._cupy.cuda.runtime.getLastError()  # who broke the capture tells the error

    @property
    def is_capturing(self) -> bool:
        return self._kept is not None

    def _keep(self, *buffers: object) -> None:
        """Hold the memory that a captured launch points to."""
        if self._kept is not None:
            self._kept.extend(buffers)

    def copy(self, source: Buffer, target: Buffer) -> None:
        self._keep(source, target)
        if source.size:
            assert source.nbytes == target.nbytes, "a copy keeps size and type"
            target.data.copy_from_device_async(source.data, source.nbytes, self._stream)

    def clear(self, target: Buffer) -> None:
        self._keep(target)
        if target.size:
            target.data.memset_async(0, target.nbytes, self._stream)

    def function(self, file: str, name: str, defines: tuple[str, ...]) -> Function:
        module = self._modules.get((file, defines))
        if module is None:
            # CuPy's cache of compiled code knows a file's text and the options, but not what it includes.
            headers = zlib.crc32(b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.cuh"))))
            told = (*defines, f"HEADERS={headers}")
            options = ("-std=c++17", f"-I{SOURCES}", *(f"-D{define}" for define in told))
            code = (SOURCES / file).read_text(encoding="utf-8")
            module = self._modules[file, defines] = self._cupy.RawModule(code=code, options=options)
        return CupyFunction(module.get_function(name), self._keep)

    def gemm(self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None = None) -> None:
        # cuBLAS is column-major: it sees the transposes, so C' = op(B)' op(A)' gives C row-major.
        p = product
        kind = np.dtype(a.dtype)
        alpha, beta = np.array(p.alpha, kind), np.array(p.beta, kind)
        handle = self._cupy.cuda.device.get_cublas_handle()
        self._products[kind.char](
            handle,
            int(p.transpose_b),
            int(p.transpose_a),
            p.n,
            p.m,
            p.k,
            alpha.ctypes.data,
            b.data.ptr,
            p.k if p.transpose_b else p.n,
            p.stride_b,
            a.data.ptr,
            p.m if p.transpose_a else p.k,
            p.stride_a,
            beta.ctypes.data,
            c.data.ptr,
            p.n,
            p.stride_c,
            p.batch,
        )

    @property
    def compute_capability(self) -> int:
        return int(self._cupy.cuda.Device(self.number).compute_capability)

    def synchronize(self) -> None:
        self._stream.synchronize()

    def describe(self) -> str:
        runtime = self._cupy.cuda.runtime
        about = runtime.getDeviceProperties(self.number)
        memory = about["totalGlobalMem"] / 2**30
        cuda = runtime.runtimeGetVersion()
        return (
            f"GPU {self.number}: {about['name'].decode()}, {memory:.0f} GiB, CUDA {cuda // 1000}."
            f"{cuda % 1000 // 10}, CuPy {self._cupy.__version__}, direct kernels and cuBLAS"
        )
