"""A blob: data and diff of one shape, the values that flow between layers and the parameters inside them."""

from __future__ import annotations

import math
from typing import Final, TypeAlias, final

from dtrain.errors import BackendError
from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend

MAX_COUNT: Final = 2**31 - 1  # values of a blob, as in Caffe


@final
class Blob:
    """`data` and `diff` of one shape on one backend, allocated on first use.

    Shapes are Caffe's, (N, C, H, W) for images. Sharing makes two blobs hold the same array.
    """

    __slots__ = ("_backend", "data", "diff", "shape")

    def __init__(self, backend: Backend, shape: Shape = ()) -> None:
        self._backend = backend
        self.shape = tuple(shape)
        self.data: SyncedArray = backend.array(self.shape)
        self.diff: SyncedArray = backend.array(self.shape)

    def __repr__(self) -> str:
        return f"Blob{self.shape}"

    @property
    def count(self) -> int:
        """Number of elements."""
        return self.data.size

    def reshape(self, shape: Shape) -> None:
        """Take another shape; values are undefined if the number of elements changes.

        Raises BackendError for more values than an index counts.
        """
        shape = tuple(shape)
        if shape != self.shape:
            if math.prod(shape) > MAX_COUNT or min(shape, default=0) < 0:
                raise BackendError(f"a blob must have at most {MAX_COUNT} values, got shape {shape}")
            self.data.reshape(shape)
            self.diff.reshape(shape)
            self.shape = shape

    def share_data(self, other: Blob) -> None:
        """Hold the other's data, under this blob's shape if that differs."""
        self.data = other.data if other.shape == self.shape else other.data.view(self.shape)

    def share_diff(self, other: Blob) -> None:
        """Hold the other's diff, under this blob's shape if that differs."""
        self.diff = other.diff if other.shape == self.shape else other.diff.view(self.shape)

    def like(self) -> Blob:
        """A new blob of this shape on this backend."""
        return Blob(self._backend, self.shape)


Blobs: TypeAlias = list[Blob]
