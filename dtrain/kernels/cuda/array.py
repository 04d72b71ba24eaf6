"""A CUDA array: a buffer in the device's memory and a plain NumPy side in the host's, copied when asked for.

The native side lies in Caffe's order. Other layouts would come in here: `match_layout` and `native_size` are
all that callers see of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.cuda.device import Buffer, Device

CLEAR, PLAIN, NATIVE, BOTH = 0, 1, 2, 3


@final
class Storage:
    """Both sides of an array and the mark which is newest; views share it."""

    def __init__(self, device: Device, count: int, dtype: DTypeLike) -> None:
        self.device = device
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.count = count
        self.newest = CLEAR
        self.plain: Plain | None = None  # flat
        self.native: Buffer | None = None  # flat
        self.is_bound = False  # the native side is a slice of a parameter buffer
        self.is_lent = False
        self.is_taken = False  # the plain side's buffer belongs to whoever gave it to `take`

    def resize(self, count: int) -> None:
        """Forget the values for room of another size."""
        assert not self.is_bound, "a parameter in the flat buffer keeps its shape"
        self.count = count
        self.plain = self.native = None
        self.newest = CLEAR
        self.is_lent = self.is_taken = False

    def plain_room(self) -> Plain:
        """The plain side's buffer, up to date or not."""
        if self.plain is None:
            self.plain = self.device.host(self.count, self.dtype)
        return self.plain

    def native_room(self) -> Buffer:
        """The native side's buffer, up to date or not."""
        if self.native is None:
            self.native = self.device.empty(self.count, self.dtype)
        return self.native

    def own_plain(self) -> None:
        """Keep the plain side in a buffer of its own: somebody will write to it."""
        if self.is_taken:
            given, self.plain, self.is_taken = self.plain, None, False
            self.plain_room()[...] = given

    def to_plain(self) -> Plain:
        """The plain side, up to date."""
        plain = self.plain_room()
        if self.newest == NATIVE:
            self.device.download(self.native_room(), plain)
            self.newest = PLAIN if self.is_lent else BOTH
        elif self.newest == CLEAR:
            plain.fill(0)
            self.newest = PLAIN
        return plain

    def to_native(self) -> Buffer:
        """The native side, up to date."""
        native = self.native_room()
        if self.newest == CLEAR:
            self.device.clear(native)
            self.newest = NATIVE
        elif self.newest == PLAIN:
            self.device.upload(self.plain_room(), native)
            if not self.is_lent:  # what is lent may be written again unseen
                self.newest = BOTH
        return native

    def written(self) -> None:
        """A kernel that overwrites the native side is queued."""
        self.newest = NATIVE
        if self.is_lent:
            self.to_plain()


@final
class CudaArray(SyncedArray):
    """Values of one shape over a storage of their own or, as a view, over another array's."""

    def __init__(self, storage: Storage, shape: Shape, *, is_view: bool = False) -> None:
        self.storage = storage
        self.shape = tuple(shape)
        self._is_view = is_view
        assert self.size == storage.count, "a view has as many elements as its base"

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of an element."""
        return self.storage.dtype

    def reshape(self, shape: Shape) -> None:
        shape = tuple(shape)
        if shape == self.shape:
            return
        self.shape = shape
        if self.size != self.storage.count:
            assert not self._is_view, "a view has as many elements as its base"
            self.storage.resize(self.size)

    # -- the plain side

    def plain(self) -> Plain:
        return self.storage.to_plain().reshape(self.shape)

    def plain_mutable(self) -> Plain:
        self.storage.own_plain()
        plain = self.plain()
        self.storage.newest = PLAIN
        return plain

    def plain_overwrite(self) -> Plain:
        self.storage.own_plain()
        self.storage.newest = PLAIN
        return self.storage.plain_room().reshape(self.shape)

    def lend_plain(self) -> Plain:
        plain = self.plain_mutable()
        self.storage.is_lent = True
        return plain

    def take(self, plain: Plain) -> None:
        assert plain.shape == self.shape, "the caller reshapes the array first"
        storage = self.storage
        if storage.is_lent or plain.dtype != storage.dtype or not plain.flags.c_contiguous:
            self.plain_overwrite()[...] = plain
            return
        storage.plain = plain.reshape(-1)
        storage.is_taken = True
        storage.newest = PLAIN

    def clear(self) -> None:
        self.storage.newest = CLEAR
        if self.storage.is_lent:
            self.storage.to_plain()

    @property
    def is_clear(self) -> bool:
        return self.storage.newest == CLEAR

    # -- the native side

    def native(self) -> Buffer:
        """The device's buffer, flat, up to date, for reading."""
        return self.storage.to_native()

    def native_overwrite(self) -> Buffer:
        """Room for all values on the device; the caller says `written` when the kernel is queued."""
        return self.storage.native_room()

    def view(self, shape: Shape) -> CudaArray:
        return CudaArray(self.storage, shape, is_view=True)

    @property
    def native_size(self) -> int:
        return self.size

    def match_layout(self, other: SyncedArray) -> None:
        """There is one layout only."""

    def bind(self, buffer: Buffer) -> None:
        assert not self._is_view, "a view has no buffer of its own"
        storage = self.storage
        assert buffer.size == storage.count, "a parameter's slice has its native size"
        if storage.newest == CLEAR:
            storage.device.clear(buffer)
            storage.newest = NATIVE
        else:
            storage.device.copy(storage.to_native(), buffer)
        storage.native = buffer
        storage.is_bound = True

    def twin(self, buffer: Buffer) -> CudaArray:
        assert buffer.size == self.size, "a parameter's slice has its native size"
        storage = Storage(self.storage.device, self.size, self.dtype)
        storage.native = buffer
        storage.newest = NATIVE
        storage.is_bound = True
        return CudaArray(storage, self.shape)

    def pull(self) -> None:
        self.storage.to_native()

    def push(self) -> None:
        self.storage.native_room()
        self.storage.written()


# What a kernel does with an array among its arguments: the launcher brings the array up to date before and
# marks it after. All arrays that a launch reads are brought up to date before any is marked, so top and
# bottom may be one array.


@final
@dataclass(frozen=True)
class Access:
    """An array from element `start` on, as a kernel's argument."""

    array: CudaArray
    reads: bool
    writes: bool
    start: int = 0

    def buffer(self) -> Buffer:
        """What the kernel gets."""
        whole = self.array.native() if self.reads else self.array.native_overwrite()
        return whole[self.start :] if self.start else whole


Argument = Access | Buffer | int | float | np.generic | None
Accessor = Callable[[SyncedArray, int], Access]


def read(array: SyncedArray, start: int = 0) -> Access:
    """The kernel reads it."""
    assert isinstance(array, CudaArray), "an operator's arrays are of its backend"
    return Access(array, True, False, start)


def write(array: SyncedArray, start: int = 0) -> Access:
    """The kernel (or those of one pass together) overwrite all of it."""
    assert isinstance(array, CudaArray), "an operator's arrays are of its backend"
    return Access(array, False, True, start)


def update(array: SyncedArray, start: int = 0) -> Access:
    """The kernel changes it in place, or writes a part."""
    assert isinstance(array, CudaArray), "an operator's arrays are of its backend"
    return Access(array, True, True, start)


def maybe(access: Accessor, array: SyncedArray | None) -> Access | None:
    """A null pointer where there is no array."""
    return None if array is None else access(array, 0)
