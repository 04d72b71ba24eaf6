"""A CUDA array: values of one shape over a storage, and what a kernel does with such an argument.

Callers outside of kernels/cuda see one native side, in Caffe's order and the type that is computed in:
parameters lie so in their flat buffers. Operators may read and write other forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import numpy as np

from dtrain.kernels.array import Plain, Room, Shape, SyncedArray
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.cuda.room import CudaRoom
from dtrain.kernels.cuda.storage import Storage


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
        """Of an element on the plain side."""
        return self.storage.dtype

    def reshape(self, shape: Shape) -> None:
        shape = tuple(shape)
        if shape == self.shape:
            return
        self.shape = shape
        if self.size != self.storage.count:
            assert not self._is_view, "a view has as many elements as its base"
            self.storage.resize(shape)

    # -- the plain side

    def plain(self) -> Plain:
        return self.storage.to_plain().reshape(self.shape)

    def plain_mutable(self) -> Plain:
        self.plain()
        return self.storage.host_writes().reshape(self.shape)

    def plain_overwrite(self) -> Plain:
        return self.storage.host_writes().reshape(self.shape)

    def lend_plain(self) -> Plain:
        self.plain_mutable()
        return self.storage.lend().reshape(self.shape)

    def take(self, plain: Plain) -> None:
        assert plain.shape == self.shape, "the caller reshapes the array first"
        if self.storage.is_lent or plain.dtype != self.dtype or not plain.flags.c_contiguous:
            self.plain_overwrite()[...] = plain
        else:
            self.storage.take(plain.reshape(-1))

    def release(self) -> None:
        if self.storage.staging is not None:
            self.storage.staging.release()

    def clear(self) -> None:
        self.storage.clear()

    @property
    def is_clear(self) -> bool:
        return self.storage.is_clear

    # -- the device's sides

    @property
    def form(self) -> Form:
        """The form that whoever fills the array writes, as far as this shape can have it."""
        return self.storage.native.of(self.shape)

    @property
    def held(self) -> Form:
        """The form in which a kernel left the values, as this shape can have it; else the base form."""
        storage = self.storage
        return storage.newest.of(self.shape) if storage.newest in storage.valid else storage.base

    def offer(self, form: Form) -> Form:
        """Choose the form in which the array will be written; what is taken of it, for this shape.

        A parameter in a flat buffer is changed in the base form, whatever is offered.
        """
        if not self.storage.is_bound:
            self.storage.native = form.of(self.shape)
        return self.form

    def native(self, form: Form | None = None) -> Buffer:
        """A device's buffer, flat, up to date, for reading; in the base form unless another is asked for."""
        wanted = self._wanted(form)
        return self.storage.side(wanted)

    def native_overwrite(self, form: Form | None = None) -> Buffer:
        """Room for all values on the device; the caller says `written` when the kernel is queued."""
        return self.storage.room(self._wanted(form))

    def written(self, form: Form | None = None) -> None:
        """A kernel that overwrites this form is queued."""
        self.storage.written(self._wanted(form))

    def _wanted(self, form: Form | None) -> Form:
        wanted = self.storage.base if form is None else form.of(self.shape)
        if wanted.channels_last:
            self.storage.as_images(self.shape)
        return wanted

    def view(self, shape: Shape) -> CudaArray:
        return CudaArray(self.storage, shape, is_view=True)

    @property
    def native_size(self) -> int:
        return self.size

    def match_layout(self, other: SyncedArray) -> None:
        """Flat buffers have one layout."""

    def bind(self, buffer: Buffer) -> None:
        assert not self._is_view, "a view has no buffer of its own"
        storage = self.storage
        assert buffer.size == storage.count, "a parameter's slice has its native size"
        if storage.is_clear:
            storage.card.device.clear(buffer)
        else:
            storage.card.device.copy(storage.bring(storage.base), buffer)
        storage.sides = {storage.base: buffer}
        storage.native = storage.base
        storage.valid = {storage.base}
        storage.host_is_valid = False
        storage.is_bound = True

    def move_into(self, room: Room) -> None:
        assert isinstance(room, CudaRoom), "a room is of its backend"
        storage = self.storage
        assert not storage.is_bound, "a parameter lies in the flat buffer"
        storage.shared = room
        storage.sides = {}
        storage.valid = set()
        storage.host_is_valid = False

    @property
    def storage_id(self) -> int:
        return id(self.storage)

    def twin(self, buffer: Buffer) -> CudaArray:
        assert buffer.size == self.size, "a parameter's slice has its native size"
        storage = Storage(self.storage.card, self.shape)
        storage.sides = {storage.base: buffer}
        storage.valid = {storage.base}
        storage.is_bound = True
        return CudaArray(storage, self.shape)

    def pull(self) -> None:
        self.storage.side(self.storage.base)

    def push(self) -> None:
        self.storage.room(self.storage.base)
        self.storage.written(self.storage.base)


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
    form: Form | None = None

    def buffer(self) -> Buffer:
        """What the kernel gets."""
        array, form = self.array, self.form
        whole = array.native(form) if self.reads else array.native_overwrite(form)
        return whole[self.start :] if self.start else whole

    def written(self) -> None:
        """The kernel that writes is queued."""
        self.array.written(self.form)


Argument = Access | Buffer | int | float | np.generic | None


class Accessor(Protocol):
    """`read`, `write` or `update`."""

    def __call__(self, array: SyncedArray, start: int = 0, form: Form | None = None) -> Access: ...


def read(array: SyncedArray, start: int = 0, form: Form | None = None) -> Access:
    """The kernel reads it."""
    return Access(own(array), True, False, start, form)


def write(array: SyncedArray, start: int = 0, form: Form | None = None) -> Access:
    """The kernel (or those of one pass together) overwrite all of it."""
    return Access(own(array), False, True, start, form)


def update(array: SyncedArray, start: int = 0, form: Form | None = None) -> Access:
    """The kernel changes it in place, or writes a part."""
    return Access(own(array), True, True, start, form)


def maybe(access: Accessor, array: SyncedArray | None, form: Form | None = None) -> Access | None:
    """A null pointer where there is no array."""
    return None if array is None else access(array, 0, form)


def follow(bottom: SyncedArray, top: SyncedArray) -> Form:
    """Offer the bottom's form for the top, a twin in shape; the form."""
    return own(top).offer(own(bottom).form)


def best(forms: Sequence[Form]) -> Form:
    """The form for an operator whose arrays come in these: channels last or else 16 bits, if one is so."""
    return next(
        (form for form in forms if form.channels_last),
        next((form for form in forms if form.type.is_16_bit), forms[0]),
    )


def own(array: SyncedArray) -> CudaArray:
    """An array as this folder knows it."""
    assert isinstance(array, CudaArray), "an operator's arrays are of its backend"
    return array
