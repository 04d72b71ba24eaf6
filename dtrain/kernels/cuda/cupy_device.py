"""A card through CuPy: memory pools, kernels compiled by NVRTC for the card on first use, cuBLASLt.

CuPy is imported when a device is made, never before, so that everything else works without it.

Facts of CuPy 14 that the code below rests on (cupy/cuda/{stream,memory,pinned_memory}.pyx):
- `begin_capture` captures in relaxed mode: other threads and streams may do what they like meanwhile, and the
  memory pool may grow. A copy to or from the host, and cuBLAS, raise on a stream that is being captured.
- Current card and stream belong to a thread, and so does the part of the memory pool that `empty` takes from:
  that of the current stream. Freed memory is handed out again at once, in that stream's order.
- A pinned allocation goes back to its pool when the Python object dies; `numpy.frombuffer` keeps that alive.
"""

from __future__ import annotations

import contextlib
import importlib
import threading
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError
from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.cublas_lt import CublasLt
from dtrain.kernels.cuda.cupy_blas import CupyBlas
from dtrain.kernels.cuda.cupy_stream import CupyMark, CupyReplay, Sender, UnderWay
from dtrain.kernels.cuda.device import SOURCES, Buffer, Device, Function, Mark, Product
from dtrain.kernels.cuda.epilog import Epilog
from dtrain.kernels.cuda.faults import Faults
from dtrain.kernels.cuda.products import Products

SHARED_BYTES: Final = 48 << 10  # that a block gets without being asked for more


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


@final
class CupyFunction:
    """One kernel of a module, queued on the device's stream whatever the thread's current one is."""

    def __init__(
        self, file: str, name: str, raw: Any, stream: Any, keep: Callable[..., None], faults: Faults
    ) -> None:
        self._told = f"{name} of {file}"
        self._raw = raw
        self._kernel = raw.kernel  # compiles and loads, now rather than in a capture
        self._stream = stream
        self._keep = keep
        self._faults = faults
        self._shared_bytes = SHARED_BYTES

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Buffer | np.generic],
        shared_bytes: int,
    ) -> None:
        self._keep(*args)
        try:
            if shared_bytes > self._shared_bytes:
                self._raw.max_dynamic_shared_size_bytes = shared_bytes
                self._shared_bytes = shared_bytes
            self._kernel(grid, block, args, shared_bytes, self._stream)
        except self._faults.kinds as error:
            raise self._faults.launch(self._told, error) from error
        self._faults.last_kernel = self._told


@final
class Here(threading.local):
    """Whether the device is the calling thread's current one."""

    is_current = False


@final
class CupyDevice(Device):
    """Card `number`, which becomes the making thread's current one; its stream likewise.

    That thread alone may use it, but for `host`, `empty`, `copy_in` and what a mark has: other threads may
    call these at any time, even while a capture goes on.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        found = count()
        if not 0 <= number < found:
            raise BackendError(f"GPU: the card's number must be in [0, {found}), got {number}")
        self._cupy = load()
        self._faults = Faults(self._cupy, number)
        self._here = Here()
        with self._telling("a context on the card"):
            self._card = self._cupy.cuda.Device(number)
            self._card.use()
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
            self._stream.use()
            self._here.is_current = True
            self._copies = self._cupy.cuda.Stream(non_blocking=True)
            self._capability = int(self._card.compute_capability)
        self._sender = Sender(lambda size: self.host(size, np.uint8))
        self._under_way = UnderWay()
        self._kept: list[object] | None = None  # what the launches of the present capture point to
        self._captures = 0
        self._capturing_thread = 0
        self._most_bytes = 0
        self._modules: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._epilog = Epilog(self)
        self._products = self._choose_products()

    def _choose_products(self) -> Products:
        try:
            return CublasLt(self._stream, self._capability, lambda size: self.empty(size, np.uint8))
        except (ImportError, RuntimeError) as error:  # RuntimeError: nvmath-python finds no cuBLASLt
            return CupyBlas(self._cupy, f"nvmath-python with cuBLASLt must be there, got {error}")

    @contextlib.contextmanager
    def _telling(self, what: str) -> Any:
        """Tell CUDA's errors as BackendError."""
        try:
            yield
        except self._faults.kinds as error:
            raise self._faults.at(what, error) from error

    def _be_current(self) -> None:
        if not self._here.is_current:
            self._card.use()
            self._stream.use()
            self._here.is_current = True

    # -- memory

    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        self._be_current()
        try:
            buffer = self._cupy.empty(count, dtype)
        except self._faults.out_of_memory as error:
            raise self._faults.memory(count * np.dtype(dtype).itemsize, self.memory_used()) from error
        self._most_bytes = max(self._most_bytes, self.memory_used())
        self._keep(buffer)
        return buffer

    def host(self, count: int, dtype: DTypeLike) -> Plain:
        self._be_current()
        kind = np.dtype(dtype)
        nbytes = max(count * kind.itemsize, 1)
        try:
            memory = self._cupy.cuda.alloc_pinned_memory(nbytes)
        except self._faults.kinds as error:
            raise self._faults.pinned_memory(nbytes, error) from error
        return np.frombuffer(memory, kind, count)

    def memory_used(self) -> int:
        return int(self._cupy.get_default_memory_pool().used_bytes())

    def memory_most(self) -> int:
        return self._most_bytes

    def memory_free(self) -> int:  # what the driver has left, and what the pool has to spare
        self._be_current()
        with self._telling("a look at the card's memory"):
            free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    # -- copies

    def upload(self, source: Plain, target: Buffer) -> None:
        self._refuse_in_capture("an upload")
        if target.size:
            assert source.nbytes == target.nbytes, "a copy keeps size and type"
            with self._telling("an upload"):
                target.data.copy_from_host_async(source.ctypes.data, source.nbytes, self._stream)
                self._stream.synchronize()

    def download(self, source: Buffer, target: Plain) -> None:
        self._refuse_in_capture("a download")
        with self._telling("a download"):
            if source.size:
                assert source.nbytes == target.nbytes, "a copy keeps size and type"
                source.data.copy_to_host_async(target.ctypes.data, target.nbytes, self._stream)
            self._stream.synchronize()

    def send(self, source: NDArray[Any], target: Buffer) -> None:
        self._refuse_in_capture("numbers for the device")
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        room = self._sender.hold(source)
        with self._telling("a small copy"):
            target.data.copy_from_host_async(room.ctypes.data, source.nbytes, self._stream)
            self._sender.sent(self._event(self._stream), room)

    def copy_in(self, source: NDArray[Any], target: Buffer, after: Mark | None) -> CupyMark:
        self._refuse_in_capture("a copy beside")
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        self._be_current()
        with self._telling("a copy to the device"):
            if after is not None:
                self._copies.wait_event(self._event_of(after))
            target.data.copy_from_host_async(source.ctypes.data, source.nbytes, self._copies)
            return self._copied(source, target)

    def copy_out(self, source: Buffer, target: NDArray[Any]) -> CupyMark:
        self._refuse_in_capture("a copy beside")
        assert source.nbytes == target.nbytes, "a copy keeps size and type"
        self._be_current()
        with self._telling("a copy from the device"):
            self._copies.wait_event(self._event(self._stream))
            source.data.copy_to_host_async(target.ctypes.data, target.nbytes, self._copies)
            return self._copied(source, target)

    def _copied(self, source: object, target: object) -> CupyMark:
        event = self._event(self._copies)
        self._under_way.add(event, source, target)
        return CupyMark(event, self._faults)

    def copy(self, source: Buffer, target: Buffer) -> None:
        self._keep(source, target)
        if source.size:
            assert source.nbytes == target.nbytes, "a copy keeps size and type"
            with self._telling("a copy within the device"):
                target.data.copy_from_device_async(source.data, source.nbytes, self._stream)

    def clear(self, target: Buffer) -> None:
        self._keep(target)
        if target.size:
            with self._telling("a fill with zeros"):
                target.data.memset_async(0, target.nbytes, self._stream)

    # -- order

    def mark(self) -> CupyMark:
        self._be_current()
        with self._telling("a mark"):
            return CupyMark(self._event(self._stream), self._faults, self._capture)

    def after(self, mark: Mark) -> None:
        event = self._event_of(mark)
        with self._telling("a wait for a mark"):
            self._stream.wait_event(event)

    def synchronize(self) -> None:
        self._refuse_in_capture("a wait for it")
        with self._telling("what is queued"):
            self._stream.synchronize()

    def _event(self, stream: Any) -> Any:
        event = self._cupy.cuda.Event(disable_timing=True)
        stream.record(event)
        return event

    def _event_of(self, mark: Mark) -> Any:
        """CUDA lets nothing wait across the border of a capture."""
        assert isinstance(mark, CupyMark), "a mark is of its device"
        if mark.capture != self._capture:
            raise BackendError(
                "CUDA graph: what waits for a mark must be queued in its capture, or both outside, got one "
                "of the two"
            )
        return mark.event

    # -- capture

    @property
    def is_capturing(self) -> bool:
        return self._kept is not None

    @property
    def no_capture(self) -> str:
        return self._products.no_capture

    @property
    def _capture(self) -> int:
        """The number of the capture that the calling thread is in, or 0."""
        return (
            self._captures
            if self._kept is not None and threading.get_ident() == self._capturing_thread
            else 0
        )

    def _refuse_in_capture(self, what: str) -> None:
        if self._capture:
            raise BackendError(f"CUDA graph: what is captured must stay on the device, got {what}")

    def _keep(self, *buffers: object) -> None:
        """Hold what a captured launch points to as long as its graph lives."""
        if self._kept is not None:
            self._kept.extend(buffers)

    def begin_capture(self) -> None:
        self._refuse_in_capture("a second capture")
        with self._telling("a capture's begin"):
            self._stream.begin_capture()
        self._kept = []
        self._captures += 1
        self._capturing_thread = threading.get_ident()

    def end_capture(self) -> CupyReplay:
        assert self._kept is not None, "a capture ends that has begun"
        kept, self._kept = self._kept, None
        with self._telling("a capture's end"):
            graph = self._stream.end_capture()
            graph.upload(self._stream)  # so that the first launch takes no longer than the others
        return CupyReplay(graph, self._stream, kept, self._faults)

    def abandon_capture(self) -> None:
        self._kept = None
        runtime = self._cupy.cuda.runtime
        # Ending a capture that an error has broken, or that another stream has not joined again, raises; both
        # streams are usable behind it (cudaStreamEndCapture).
        with contextlib.suppress(runtime.CUDARuntimeError):
            graph = runtime.streamEndCapture(self._stream.ptr)
            if graph:
                runtime.graphDestroy(graph)

    # -- what computes

    def function(self, file: str, name: str, defines: tuple[str, ...]) -> Function:
        module = self._modules.get((file, defines))
        if module is None:
            # CuPy's cache of compiled code knows a file's text and the options, but not what it includes.
            headers = zlib.crc32(b"".join(path.read_bytes() for path in sorted(SOURCES.glob("*.cuh"))))
            told = (*defines, f"HEADERS={headers}")
            options = ("-std=c++17", f"-I{SOURCES}", *(f"-D{define}" for define in told))
            code = (SOURCES / file).read_text(encoding="utf-8")
            module = self._modules[file, defines] = self._cupy.RawModule(code=code, options=options)
        try:
            kernel = module.get_function(name)
            return CupyFunction(file, name, kernel, self._stream, self._keep, self._faults)
        except (RuntimeError, self._cupy.cuda.compiler.CompileException) as error:
            # RuntimeError: NVRTC, or the headers of CUDA that CuPy lets every file include, are not installed
            raise self._faults.compilation(f"kernel {name} of {file}", error) from error

    def gemm(self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None = None) -> None:
        self._keep(a, b, c, bias)
        if not product.k:
            self._epilog.instead(product, c, bias)
        elif not self._products.multiply(product, a, b, c, bias, captured=self.is_capturing):
            self._epilog.run(product, c, bias)

    def library(self, name: str) -> Any | None:
        try:
            return importlib.import_module(name)
        except ImportError:
            return None

    def call(self, queue: Callable[[Sequence[int]], None], buffers: Sequence[Buffer]) -> None:
        self._keep(*buffers)
        with self._telling("a library's call"):
            queue([buffer.data.ptr for buffer in buffers])

    @property
    def stream_pointer(self) -> int:
        return int(self._stream.ptr)

    @property
    def compute_capability(self) -> int:
        return self._capability

    def describe(self) -> str:
        runtime = self._cupy.cuda.runtime
        about = runtime.getDeviceProperties(self.number)
        memory = about["totalGlobalMem"] / 2**30
        cuda = runtime.runtimeGetVersion()
        return (
            f"GPU {self.number}: {about['name'].decode()}, {memory:.0f} GiB, CUDA {cuda // 1000}."
            f"{cuda % 1000 // 10}, CuPy {self._cupy.__version__}, {self._products.name}"
        )
