"""What the CUDA side asks of a device: memory, copies, kernels by name, and matrix products.

A card is one such device (cupy_device.py); the tests bring one that runs the same kernels on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError
from dtrain.kernels.array import Plain
from dtrain.kernels.cuda.form import ValueType

Buffer: TypeAlias = Any  # 1-D array in the device's memory: `size`, `dtype`, and slices that share memory

SOURCES = Path(__file__).parent  # of the .cu files


class Function(Protocol):
    """A kernel ready to launch; arguments are buffers and NumPy scalars of the parameters' types."""

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[Buffer | np.generic],
        shared_bytes: int,
    ) -> None: ...


@final
@dataclass(frozen=True)
class Product:
    """The shape of C = alpha op(A) op(B) + beta C, row-major: op(A) is (m, k), op(B) (k, n), C (m, n).

    `batch` products run at once; matrix i begins `stride` elements i times behind the first, and a stride of
    0 is one matrix for all.
    """

    m: int
    n: int
    k: int
    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0
    inputs: ValueType | None = None
    """Of A and B; None is that of C. A product of 16-bit numbers is summed in float32."""
    output: ValueType | None = None
    """Of C and the bias; None is what the buffer's dtype says."""
    tf32: bool = False
    """Whether float32 inputs may be rounded to TF32."""
    relu: bool = False
    """C <- max(C, 0), behind the bias (n,) that is added to each row where one is given."""


class Mark(ABC):
    """A point behind all that was queued when it was made."""

    @abstractmethod
    def wait(self) -> None:
        """Return when the device has passed it."""

    @property
    @abstractmethod
    def is_passed(self) -> bool:
        """Whether the device has."""


class Replay(ABC):
    """A captured run of the device."""

    @abstractmethod
    def launch(self) -> None:
        """Queue it once more."""


class Device(ABC):
    """One device and the one stream that everything below is queued on.

    A second stream, of copies, runs beside it: what `copy_in` and `copy_out` queue. Between `begin_capture`
    and `end_capture` what is queued is kept for later instead of being executed; then nothing may wait for
    the device, and `upload`, `download`, `send` and the copies beside raise BackendError.
    """

    index_limit: int = 2**31 - 2**24
    """Arrays of more elements are indexed with 64 bits: a grid's last stride must not overflow."""

    @abstractmethod
    def empty(self, count: int, dtype: DTypeLike) -> Buffer:
        """Device memory, contents undefined."""

    @abstractmethod
    def host(self, count: int, dtype: DTypeLike) -> Plain:
        """A 1-D array in host memory that copies are fast from and to, contents undefined."""

    @abstractmethod
    def upload(self, source: Plain, target: Buffer) -> None:
        """Host to device; the source may change when this returns."""

    @abstractmethod
    def download(self, source: Buffer, target: Plain) -> None:
        """Device to host, behind all that is queued; the values are there when this returns."""

    @abstractmethod
    def send(self, source: NDArray[Any], target: Buffer) -> None:
        """Queue a few numbers to the device without waiting; the source may change when this returns."""

    @abstractmethod
    def mark(self) -> Mark:
        """Behind all that is queued on the main stream."""

    @abstractmethod
    def copy_in(self, source: NDArray[Any], target: Buffer, after: Mark | None) -> Mark:
        """Host (memory from `host`) to device beside the main stream, once that has passed `after`."""

    @abstractmethod
    def copy_out(self, source: Buffer, target: NDArray[Any]) -> Mark:
        """Device to host (memory from `host`), behind all that is queued on the main stream, beside it."""

    @abstractmethod
    def after(self, mark: Mark) -> None:
        """What is queued on the main stream from now on comes behind the mark."""

    @abstractmethod
    def begin_capture(self) -> None:
        """Keep what is queued from now on."""

    @abstractmethod
    def end_capture(self) -> Replay:
        """What was queued since `begin_capture`; nothing of it has run."""

    @abstractmethod
    def abandon_capture(self) -> None:
        """Forget what was queued since `begin_capture`, after an error."""

    @property
    @abstractmethod
    def is_capturing(self) -> bool: ...

    @property
    def no_capture(self) -> str:
        """Why nothing that computes can be captured; empty where it can."""
        return ""

    @abstractmethod
    def copy(self, source: Buffer, target: Buffer) -> None:
        """Within the device."""

    @abstractmethod
    def clear(self, target: Buffer) -> None:
        """Make every byte zero."""

    @abstractmethod
    def function(self, file: str, name: str, defines: tuple[str, ...]) -> Function:
        """The kernel `name` of a file in SOURCES, compiled with these macros ("REAL=float", "WIDE_INDEX")."""

    @abstractmethod
    def gemm(self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None = None) -> None:
        """Queue a product; beta 0 overwrites C whatever it holds."""

    def library(self, name: str) -> Any | None:
        """A vendor's Python module by its name, if it is installed and this device can run what it queues."""
        return None

    @property
    def stream_pointer(self) -> int:
        """The main stream, for such a library to queue on."""
        return 0

    def call(self, queue: Callable[[Sequence[int]], None], buffers: Sequence[Buffer]) -> None:
        """Let a library queue its work on the main stream: it gets the addresses of these buffers."""
        raise BackendError(f"{self.describe()}: a device must run libraries to be asked, got a call of one")

    def memory_used(self) -> int:
        """Bytes of the device that buffers take; 0 where nobody counts, here and below."""
        return 0

    def memory_most(self) -> int:
        """The most that buffers have taken at once."""
        return 0

    def memory_free(self) -> int:
        """Bytes that buffers could still take."""
        return 0

    @property
    @abstractmethod
    def compute_capability(self) -> int:
        """80 for sm_80, 90 for sm_90; 0 where kernels do not run on a card."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all that is queued."""

    @abstractmethod
    def describe(self) -> str:
        """The device and its libraries with their versions."""
