"""What CPU operators ask of an array, and buffers that start on a cache line."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.kernels.array import Room, Shape, SyncedArray
from dtrain.kernels.cpu.onednn import library as dnnl

Buffer: TypeAlias = NDArray[np.floating[Any]]

ALIGNMENT = 64


def aligned_empty(count: int, dtype: DTypeLike) -> Buffer:
    """A 1-D buffer of `count` elements on a cache line, contents undefined."""
    kind = np.dtype(dtype)
    raw = np.empty(count * kind.itemsize + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + count * kind.itemsize].view(kind)


def aligned_zeros(count: int, dtype: DTypeLike) -> Buffer:
    """A 1-D buffer of `count` zeros on a cache line."""
    kind = np.dtype(dtype)
    raw = np.zeros(count * kind.itemsize + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + count * kind.itemsize].view(kind)


class CpuStorage(SyncedArray):
    """What CPU operators ask of an array or of a view of one."""

    dtype: np.dtype[Any]
    layout: dnnl.Desc | None  # None is Caffe's order
    generation: int  # grows whenever shape or layout change: what was built on the array is out of date
    version: int  # grows with every write: a working copy made before is out of date

    @property
    @abstractmethod
    def desc(self) -> dnnl.Desc:
        """oneDNN's descriptor of the native side."""

    @property
    @abstractmethod
    def memory(self) -> dnnl.Memory:
        """oneDNN's memory over the native side; the same object until `generation` grows."""

    @abstractmethod
    def desc_as(self, dims: Shape) -> dnnl.Desc:
        """`desc`, under other dimensions of as many elements while the layout is plain."""

    @abstractmethod
    def memory_as(self, dims: Shape) -> dnnl.Memory:
        """`memory` under those dimensions: grouped weights have one axis more for oneDNN."""

    @property
    @abstractmethod
    def is_bound(self) -> bool:
        """Whether the native side lies in a flat parameter buffer, so that shape and layout are final."""

    @property
    @abstractmethod
    def is_lent(self) -> bool:
        """Whether `push` is to be called again when the kernel has written, since somebody looks."""

    @abstractmethod
    def offer_layout(self, layout: dnnl.Desc) -> None:
        """Take this layout if free to choose: a view and a bound parameter keep theirs."""

    def release(self) -> None:
        """Kernels have ended when they return."""

    def move_into(self, room: Room) -> None:
        raise AssertionError("CPU backends have no rooms")

    @abstractmethod
    def view(self, shape: Shape) -> CpuStorage: ...
