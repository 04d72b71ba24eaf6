"""What a CUDA array is made of: a plain side in host memory, and one on the device for each form in use.

A mark says which sides are up to date. Asking for one brings it up to date from another: Caffe's order in
the type that is computed in (`Storage.base`) lies between the host and every other form.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, final

import numpy as np

from dtrain.errors import BackendError
from dtrain.kernels.array import Plain, Shape
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import TYPE_OF, Form
from dtrain.kernels.cuda.staging import Staging

if TYPE_CHECKING:
    from dtrain.kernels.cuda.card import Card
    from dtrain.kernels.cuda.room import CudaRoom


@final
class Storage:
    """All sides of an array; views share it. It is clear, its values zero, while no side is up to date.

    `native` is the form that whoever fills the array has chosen; readers who can take it save a conversion.
    """

    def __init__(self, card: Card, shape: Shape) -> None:
        self.card = card
        self.dtype = card.dtype
        self.base = Form(TYPE_OF[card.dtype])
        self.native = self.base
        self.newest = self.base  # the form that a kernel wrote last
        self.count = _count(shape)
        self.image_shape = shape  # of the sides that have their channels last
        self.valid: set[Form] = set()
        self.host_is_valid = False
        self.host_version = 0  # grows with every write by the host
        self.plain: Plain | None = None  # flat
        self.sides: dict[Form, Buffer] = {}  # flat
        self.is_bound = False  # the base side is a slice of a parameter buffer
        self.staging: Staging | None = None  # for batches that the array takes
        self.is_taken = False  # the plain side's buffer belongs to whoever gave it to `take`
        self.shared: CudaRoom | None = None  # where the sides are, if not in memory of their own
        self.is_lost = False  # another array has overwritten the values in the shared room
        self._loan: weakref.ref[Plain] | None = None  # to what every lent view is a view of

    def resize(self, shape: Shape) -> None:
        """Forget the values for room of another size."""
        assert not self.is_bound, "a parameter in the flat buffer keeps its shape"
        self.count = _count(shape)
        self.image_shape = shape
        self.plain = None
        self.sides = {}
        self.native = self.base
        self.valid = set()
        self.host_is_valid = self.is_taken = self.is_lost = False
        self._loan = None

    @property
    def is_clear(self) -> bool:
        return not self.valid and not self.host_is_valid and not self.is_lost

    @property
    def is_lent(self) -> bool:
        """Whether somebody holds the plain side, reads it and writes to it unseen."""
        return self._loan is not None and self._loan() is not None

    def clear(self) -> None:
        """Zero, once somebody looks."""
        self._write()
        self.host_is_valid = False
        if self.is_lent:
            self.to_plain()

    # -- the host's side

    def plain_room(self) -> Plain:
        """The plain side's buffer, up to date or not."""
        if self.plain is None:
            self.plain = self.card.device.host(self.count, self.dtype)
        return self.plain

    def own_plain(self) -> None:
        """Keep the plain side in a buffer of its own: somebody will write to it."""
        if self.is_taken:
            given, self.plain, self.is_taken = self.plain, None, False
            self.plain_room()[...] = given

    def to_plain(self) -> Plain:
        """The plain side, up to date."""
        self._refuse_if_lost()
        plain = self.plain_room()
        if self.host_is_valid:
            if self.card.trace is not None:
                self.card.trace.host_reads(self)
            return plain
        if not self.valid:
            plain.fill(0)
        else:
            self.card.leaves_the_device("reads what the device has computed")
            self.card.device.download(self.side(self.base), plain)
        self.host_is_valid = True
        return plain

    def host_writes(self) -> Plain:
        """The plain side's buffer, which becomes the newest."""
        self.card.leaves_the_device("writes what the device shall read")
        self.own_plain()
        self.valid = set()
        self.is_lost = False
        self.host_is_valid = True
        self.host_version += 1
        return self.plain_room()

    def take(self, plain: Plain) -> None:
        """The plain side is this flat buffer from now on, which belongs to the caller."""
        self.card.leaves_the_device("writes what the device shall read")
        self.plain = plain
        self.is_taken = True
        self.is_lost = False
        self.valid = set()
        self.host_is_valid = True
        self.host_version += 1

    def lend(self) -> Plain:
        """The plain side for somebody who keeps it, until nobody holds it or a view of it."""
        root = self._loan() if self._loan is not None else None
        if root is None:
            # What it is a view of is no array: NumPy then lets all views of it refer to it, so that it lives
            # exactly as long as somebody holds one.
            root = np.asarray(self.plain_room().data)
            self._loan = weakref.ref(root)
        return root

    # -- the device's sides

    def room(self, form: Form) -> Buffer:
        """A side's buffer, up to date or not."""
        if self.shared is not None:
            self.sides[form] = self.shared.buffer(self, form)
            return self.sides[form]
        found = self.sides.get(form)
        if found is None:
            found = self.sides[form] = self.card.device.empty(self.count, form.type.storage)
        return found

    def side(self, form: Form) -> Buffer:
        """A side, up to date, for reading."""
        trace = self.card.trace
        if trace is not None:
            trace.reads(self, form)
        return self.bring(form)

    def bring(self, form: Form) -> Buffer:
        """A side's buffer, brought up to date from what is newest."""
        self._refuse_if_lost()
        buffer = self.room(form)
        if form in self.valid and not (self.is_lent and self.host_is_valid):
            return buffer
        if self.host_is_valid and (not self.valid or self.is_lent):
            if self.is_taken:
                self.staging = self.staging or Staging(self.card.device)
                self.staging.bring(self.plain_room(), self.room(self.base))
            else:
                self.card.device.upload(self.plain_room(), self.room(self.base))
            self.valid = {self.base}
        elif not self.valid:
            cleared = self.base if self.is_bound else form  # no bits are set in a zero of any form
            self.card.device.clear(self.room(cleared))
            self.valid = {cleared}
        other_order = Form(form.type, not form.channels_last)
        if form not in self.valid and other_order in self.valid and form.type is not self.base.type:
            self.card.convert(self.sides[other_order], other_order, buffer, form, self.image_shape)
            self.valid.add(form)
        if form not in self.valid:
            if self.base not in self.valid:
                (other, *_) = self.valid
                self.card.convert(self.sides[other], other, self.room(self.base), self.base, self.image_shape)
                self.valid.add(self.base)
            if form != self.base:
                self.card.convert(self.sides[self.base], self.base, buffer, form, self.image_shape)
                self.valid.add(form)
        return buffer

    def written(self, form: Form) -> None:
        """A kernel that overwrites this side is queued: the others are out of date."""
        self._write()
        self.valid = {form}
        self.newest = form
        self.host_is_valid = False
        if self.is_lent:
            self.to_plain()

    def forget_derived(self) -> None:
        """Keep the side that whoever changes the values writes: forms made from it are made anew."""
        if self.base in self.valid:
            self.valid = {self.base}

    def as_images(self, shape: Shape) -> None:
        """Sides that have their channels last are of this shape from now on."""
        if shape == self.image_shape or len(shape) != 4:
            return
        if any(form.channels_last for form in self.sides):
            if self.valid:
                self.bring(self.base)
            self.sides = {form: side for form, side in self.sides.items() if not form.channels_last}
            self.valid = {form for form in self.valid if not form.channels_last}
        self.image_shape = shape

    def _write(self) -> None:
        if self.card.trace is not None:
            self.card.trace.writes(self)
        self.valid = set()
        self.is_lost = False

    def lose(self) -> None:
        """Another array takes the shared room."""
        self.is_lost = bool(self.valid) and not self.host_is_valid
        self.valid = set()

    def _refuse_if_lost(self) -> None:
        if self.is_lost:
            raise BackendError(
                "a blob's values must be read before its memory is used for another's, got a read behind "
                "that; --plan off keeps them all"
            )


def _count(shape: Shape) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count
