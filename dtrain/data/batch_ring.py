"""The memory that batches are written to, used over and over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
import numpy.typing as npt

from dtrain.data.sample_writer import Floats, Samples
from dtrain.data.sampler import Draw

Allocate: TypeAlias = Callable[[int, npt.DTypeLike], npt.NDArray[Any]]
"""So many values of a type, in one dimension: where batches are written, say page-locked memory of a GPU."""

_ALIGNMENT_BYTES = 64


def aligned_zeros(count: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that start at a multiple of 64 bytes; written now so that no page is first touched in a step."""
    size_bytes = count * np.dtype(dtype).itemsize
    memory = np.zeros(size_bytes + _ALIGNMENT_BYTES, np.uint8)
    memory.fill(0)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + size_bytes].view(dtype)


@final
@dataclass(slots=True)
class Slot:
    """A batch's arrays, and how far it is."""

    memory: Samples
    data: Samples
    labels: Floats
    draw: Draw | None = None
    given_out: int = 0
    """Samples that threads have taken."""
    filled: int = 0
    error: BaseException | None = None

    def fit(self, shape: tuple[int, ...], allocate: Allocate) -> None:
        """Make `data` that large."""
        if self.data.shape != shape:
            count = int(np.prod(shape))
            if count > self.memory.size:
                self.memory = allocate(count, self.memory.dtype)
            self.data = self.memory[:count].reshape(shape)

    def reset(self) -> None:
        """Forget the batch."""
        self.draw = None
        self.given_out = self.filled = 0
        self.error = None


@final
class Ring:
    """Slots side by side, each of whose data starts as far from a multiple of 64 bytes as the first."""

    def __init__(
        self,
        num: int,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        label_shape: tuple[int, ...],
        allocate: Allocate,
    ) -> None:
        count, label_count = int(np.prod(shape)), int(np.prod(label_shape))
        aligned = _ALIGNMENT_BYTES // dtype.itemsize
        stride = -(-count // aligned) * aligned
        self._shape, self._label_shape, self._stride = shape, label_shape, stride
        self._data = allocate(num * stride, dtype)
        self._labels: Floats = allocate(num * label_count, np.float32)
        labels = self._labels.reshape(num, *label_shape)
        self.slots: list[Slot] = []
        for n in range(num):
            memory = self._data[n * stride : (n + 1) * stride]
            self.slots.append(Slot(memory, memory[:count].reshape(shape), labels[n]))
        self.is_dense = stride == count
        """Nothing lies between the data of one slot and the next."""

    def at(self, number: int) -> Slot:
        """The slot of a batch."""
        return self.slots[number % len(self.slots)]

    def joined(self, number: int, count: int) -> tuple[Samples, Floats]:
        """Data and labels of so many batches as of one; the ring is dense and does not end among them."""
        first, size = number % len(self.slots), self._shape[0]
        assert self.is_dense
        assert first + count <= len(self.slots)
        data = self._data[first * self._stride : (first + count) * self._stride]
        num_labels = self._labels.size // len(self.slots)
        labels = self._labels[first * num_labels : (first + count) * num_labels]
        return (
            data.reshape(count * size, *self._shape[1:]),
            labels.reshape(count * size, *self._label_shape[1:]),
        )
