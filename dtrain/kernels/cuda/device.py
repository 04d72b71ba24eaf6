"""What the CUDA side asks of a device: memory, copies, kernels by name, and matrix products.

A card is one such device (cupy_device.py); the tests bring one that runs the same kernels on the CPU.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias, final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.kernels.array import Plain

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


class Device(ABC):
    """One device and the one stream that everything below is queued on."""

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
    def copy(self, source: Buffer, target: Buffer) -> None:
        """Within the device."""

    @abstractmethod
    def clear(self, target: Buffer) -> None:
        """Make every byte zero."""

    @abstractmethod
    def function(self, file: str, name: str, defines: tuple[str, ...]) -> Function:
        """The kernel `name` of a file in SOURCES, compiled with these macros ("REAL=float", "WIDE_INDEX")."""

    @abstractmethod
    def gemm(self, product: Product, a: Buffer, b: Buffer, c: Buffer) -> None:
        """Queue a product; beta 0 overwrites C whatever it holds."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait for all that is queued."""

    @abstractmethod
    def describe(self) -> str:
        """The device and its libraries with their versions."""
