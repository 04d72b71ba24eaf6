"""What every device's array offers: values of one shape, kept in step between two sides.

The native side is what kernels use: any layout in any memory. The plain side is a NumPy array in
Caffe's order (N, C, H, W), which is what files, scripts and loss lines see. A mark says which side
is newest; asking for a side brings it up to date. A cleared array is zero without having been written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Shape: TypeAlias = tuple[int, ...]
Plain: TypeAlias = NDArray[np.floating[Any]]


class Room(ABC):
    """Memory that several arrays use one after the other: writing one of them loses what another held."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Taken so far."""


class SyncedArray(ABC):
    """Values of one shape on one device, with a plain NumPy side."""

    shape: Shape

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar's shape ()."""
        count = 1
        for extent in self.shape:
            count *= extent
        return count

    @abstractmethod
    def reshape(self, shape: Shape) -> None:
        """Take another shape; the values are undefined if the number of elements changes."""

    @abstractmethod
    def plain(self) -> Plain:
        """The values in Caffe's order, for reading."""

    @abstractmethod
    def plain_mutable(self) -> Plain:
        """The values in Caffe's order, to be changed in place; the plain side becomes the newest."""

    @abstractmethod
    def plain_overwrite(self) -> Plain:
        """Room for all values in Caffe's order, contents undefined; the plain side becomes the newest."""

    @abstractmethod
    def lend_plain(self) -> Plain:
        """The values in Caffe's order, for someone who keeps them and may write to them at any time.

        From now on a kernel reads what stands there when it starts, and what it writes stands there when it
        has ended; that costs a copy each time unless the native side is the plain one. Ends when nobody holds
        the array or a view of it any more, or a reshape changes the number of elements.
        """

    @abstractmethod
    def take(self, plain: Plain) -> None:
        """Take the values of `plain`, whose buffer may be used: it must not change until `release`."""

    @abstractmethod
    def release(self) -> None:
        """Return when the buffer that was taken last may change: the array's values may then be gone."""

    @abstractmethod
    def clear(self) -> None:
        """Make every value zero, at no cost until somebody looks."""

    @property
    @abstractmethod
    def is_clear(self) -> bool:
        """Whether the values are zero because of `clear` and nothing was written since."""

    @abstractmethod
    def view(self, shape: Shape) -> SyncedArray:
        """The same values under another shape of as many elements; writes go through."""

    @property
    @abstractmethod
    def native_size(self) -> int:
        """Elements of the native side, the layout's padding included."""

    @abstractmethod
    def match_layout(self, other: SyncedArray) -> None:
        """Take the other's layout, for a diff that must lie as its data."""

    @abstractmethod
    def bind(self, buffer: Plain) -> None:
        """Move the native side into `buffer` (flat, `native_size` elements) for good, values kept.

        What was built on the array before stays valid.
        """

    @abstractmethod
    def move_into(self, room: Room) -> None:
        """Keep the native side in this room from now on, values forgotten; reading lost ones is an error."""

    @property
    @abstractmethod
    def storage_id(self) -> int:
        """The same for arrays that hold the same values: views, and what shares them."""

    @abstractmethod
    def twin(self, buffer: Plain) -> SyncedArray:
        """An array of this shape and layout over `buffer`, whose values it takes as they are."""

    @abstractmethod
    def pull(self) -> None:
        """Bring the native side up to date: call before a kernel reads it."""

    @abstractmethod
    def push(self) -> None:
        """Make the native side the newest: call when a kernel overwrites it.

        A kernel whose run begins after the call makes it again at the end for an array that is lent.
        """
