"""A CPU array: a plain NumPy side, and a native side in whatever layout oneDNN asked for.

While the layout is plain (None) both sides are one buffer. Buffers are allocated on first use.
"""

from __future__ import annotations

import weakref
from typing import final

import numpy as np
from numpy.typing import DTypeLike

from dtrain.kernels.array import Plain, Shape, SyncedArray
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.storage import Buffer, CpuStorage, aligned_empty, aligned_zeros
from dtrain.kernels.cpu.view import CpuView

CLEAR, PLAIN, NATIVE, BOTH = 0, 1, 2, 3


@final
class CpuArray(CpuStorage):
    """Values of one shape with buffers of their own."""

    def __init__(self, shape: Shape, dtype: DTypeLike, engine: dnnl.Engine | None) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.layout = None
        self.generation = 0
        self.version = 0
        self._engine = engine
        self._newest = CLEAR
        self._plain: Plain | None = None  # Caffe's order, `shape`
        self._native: Buffer | None = None  # flat, in `layout`; None while the layout is plain
        self._memories: dict[Shape, dnnl.Memory] = {}  # over the native side, by dimensions
        self._to_plain: dnnl.Primitive | None = None
        self._to_native: dnnl.Primitive | None = None
        self._plain_memory: dnnl.Memory | None = None
        self._is_bound = False
        self._loan: weakref.ref[Plain] | None = None  # to what every lent view is a view of
        self._is_taken = False  # the plain side's buffer belongs to whoever gave it to `take`

    # -- shape and layout

    def reshape(self, shape: Shape) -> None:
        shape = tuple(shape)
        if shape == self.shape:
            return
        assert not self._is_bound, "a parameter in the flat buffer keeps its shape"
        count = self.size
        self.shape = shape
        if self.layout is None and self._plain is not None and count == self.size:
            self._plain = self._plain.reshape(shape)
        elif self.is_lent and count == self.size:
            keep = self.plain()
            self._drop()
            self._keep(keep.reshape(shape))
        else:
            self._drop()
            self._loan = None
        self._memories = {}
        self.generation += 1

    def _drop(self) -> None:
        """Forget values and buffers."""
        self.layout = None
        self._plain = self._native = None
        self._memories = {}
        self._plain_memory = None
        self._to_plain = self._to_native = None
        self._is_taken = False
        self._newest = CLEAR

    def _keep(self, plain: Plain) -> None:
        """Go on with this plain side after `_drop`."""
        self._plain = plain
        self._newest = self._plain_is_newest()

    def offer_layout(self, layout: dnnl.Desc) -> None:
        if self._is_bound or layout == self.desc:
            return
        keep, is_taken = self.plain() if self._newest != CLEAR else None, self._is_taken
        self._drop()
        self.layout = None if layout.is_plain else layout
        if keep is not None:
            self._keep(keep)
            self._is_taken = is_taken
        self.generation += 1

    @property
    def native_size(self) -> int:
        return self.size if self.layout is None else self.layout.nbytes // self.dtype.itemsize

    def match_layout(self, other: SyncedArray) -> None:
        assert isinstance(other, CpuStorage)
        if self.layout is not None or other.layout is not None:  # two in Caffe's order need no oneDNN
            self.offer_layout(other.desc)

    def bind(self, buffer: Buffer) -> None:
        assert buffer.shape == (self.native_size,), "a parameter's slice has its native size"
        assert not self.is_lent, "what is lent stays where it is"
        if self._newest == CLEAR:
            buffer.fill(0)
        else:
            buffer[:] = self.native()
        if self.layout is None:
            self._plain = buffer.reshape(self.shape)
            self._newest = BOTH
        else:
            self._native = buffer
            self._newest = NATIVE
        self._repoint(buffer)
        self._is_bound = True

    @property
    def is_bound(self) -> bool:
        return self._is_bound

    @property
    def storage_id(self) -> int:
        return id(self)

    def twin(self, buffer: Buffer) -> CpuArray:
        other = CpuArray(self.shape, self.dtype, self._engine)
        other.layout = self.layout
        assert buffer.shape == (other.native_size,), "a parameter's slice has its native size"
        if self.layout is None:
            other._plain = buffer.reshape(self.shape)
            other._newest = BOTH
        else:
            other._native = buffer
            other._newest = NATIVE
        other._is_bound = True
        return other

    # -- the plain side

    def plain_storage(self) -> Plain:
        """The plain side's buffer, up to date or not."""
        if self._plain is None:
            self._plain = aligned_empty(self.size, self.dtype).reshape(self.shape)
        return self._plain

    def _plain_is_newest(self) -> int:
        """The mark after the plain side was written; while it is lent it may be written again unseen."""
        return BOTH if self.layout is None and not self.is_lent else PLAIN

    def plain(self) -> Plain:
        plain = self._plain if self._plain is not None else self.plain_storage()
        if self._newest == NATIVE:
            self._run_to_plain()
            self._newest = PLAIN if self.is_lent else BOTH
        elif self._newest == CLEAR:
            plain.fill(0)
            self._newest = self._plain_is_newest()
        return plain

    def plain_mutable(self) -> Plain:
        plain = self.plain()
        self._newest = self._plain_is_newest()
        self.version += 1
        return plain

    def plain_overwrite(self) -> Plain:
        self._newest = self._plain_is_newest()
        self.version += 1
        return self._plain if self._plain is not None else self.plain_storage()

    def lend_plain(self) -> Plain:
        plain = self.plain()
        if self._is_taken:
            plain = self._own_plain(plain)
        root = self._loan() if self._loan is not None else None
        if root is None:
            # What it is a view of is no array: NumPy then lets all views of it refer to it, so that it
            # lives exactly as long as somebody holds one.
            root = np.asarray(plain.data)
            self._loan = weakref.ref(root)
        self.plain_mutable()
        return root.reshape(self.shape)

    def _own_plain(self, given: Plain) -> Plain:
        """Leave the buffer that `take` was given for one of this array's own."""
        self._is_taken = False
        own = self._plain = aligned_empty(self.size, self.dtype).reshape(self.shape)
        own[...] = given
        if self.layout is None:
            self._repoint(own)
        elif self._plain_memory is not None:
            self._plain_memory.point_to(own.ctypes.data)
        return own

    @property
    def is_lent(self) -> bool:
        if self._loan is None:
            return False
        if self._loan() is None:
            self._loan = None
            return False
        return True

    def clear(self) -> None:
        self._newest = CLEAR
        self.version += 1
        if self.is_lent:
            self.plain()

    @property
    def is_clear(self) -> bool:
        return self._newest == CLEAR

    def view(self, shape: Shape) -> CpuView:
        return CpuView(self, shape)

    def take(self, plain: Plain) -> None:
        assert plain.shape == self.shape, "the caller reshapes the array first"
        if self.layout is not None or self._is_bound or self.is_lent or plain.dtype != self.dtype:
            self.plain_overwrite()[...] = plain
            return
        assert plain.flags.c_contiguous, "a buffer is used as it lies"
        self._plain = plain
        self._is_taken = True
        self._repoint(plain)
        self._newest = BOTH
        self.version += 1

    # -- the native side

    def native(self) -> Buffer:
        """The values in the layout, flat, for reading."""
        self.pull()
        if self.layout is None:
            assert self._plain is not None
            return self._plain.reshape(-1)
        assert self._native is not None
        return self._native

    def pull(self) -> None:
        newest = self._newest
        if newest >= NATIVE:
            return
        if newest == CLEAR:
            if self.layout is None:
                self.plain_storage().fill(0)
                self._newest = BOTH
            else:
                self._native_buffer().fill(0)
                self._newest = NATIVE
            return
        if self.layout is not None:
            self._run_to_native()
        if self.is_lent:
            self.version += 1
        else:
            self._newest = BOTH

    def push(self) -> None:
        if self.layout is None:
            if self._plain is None:
                self.plain_storage()
            self._newest = self._plain_is_newest()
        else:
            if self._native is None:
                self._native_buffer()
            self._newest = NATIVE
        self.version += 1
        if self.is_lent:
            self.plain()

    def _repoint(self, buffer: Plain) -> None:
        """Let what was built on the native side use another buffer."""
        for memory in self._memories.values():
            memory.point_to(buffer.ctypes.data)

    def _native_buffer(self) -> Buffer:
        if self._native is None:
            self._native = aligned_zeros(self.native_size, self.dtype)
        return self._native

    @property
    def desc(self) -> dnnl.Desc:
        return self.layout if self.layout is not None else dnnl.plain(self.shape or (1,))

    @property
    def memory(self) -> dnnl.Memory:
        return self.memory_as(self.desc.dims)

    def desc_as(self, dims: Shape) -> dnnl.Desc:
        return self.layout if self.layout is not None else dnnl.plain(dims)

    def memory_as(self, dims: Shape) -> dnnl.Memory:
        memory = self._memories.get(dims)
        if memory is None:
            buffer = self.plain_storage() if self.layout is None else self._native_buffer()
            memory = dnnl.Memory(self.engine, self.desc_as(dims), buffer.ctypes.data)
            self._memories[dims] = memory
        return memory

    @property
    def engine(self) -> dnnl.Engine:
        """The oneDNN engine that memories are made on."""
        assert self._engine is not None, "an array without oneDNN has no memory"
        return self._engine

    def _plain_side(self) -> dnnl.Memory:
        if self._plain_memory is None:
            self._plain_memory = dnnl.Memory(
                self.engine, dnnl.plain(self.desc.dims), self.plain_storage().ctypes.data
            )
        return self._plain_memory

    def _run_to_plain(self) -> None:
        if self._to_plain is None:
            self._to_plain = dnnl.reorder(self.memory, self._plain_side(), self.engine)
        self._to_plain()

    def _run_to_native(self) -> None:
        if self._to_native is None:
            self._to_native = dnnl.reorder(self._plain_side(), self.memory, self.engine)
        self._to_native()
