"""Where values lie: descriptors of shape and layout, and memories over buffers."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import final

from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cpu.onednn.c_api import check, dims_array, library
from dtrain.kernels.cpu.onednn.constants import ANY, F32, PLAIN_TAG, Dims


@final
class Desc:
    """A memory descriptor: shape, type and layout."""

    __slots__ = ("_owner", "dims", "nbytes", "ptr")

    def __init__(self, ptr: int, dims: Dims, owner: object = None) -> None:
        self.ptr = ctypes.c_void_p(ptr)
        self.dims = dims
        self.nbytes: int = library().dnnl_memory_desc_get_size(self.ptr)
        self._owner = owner  # keeps a queried descriptor's primitive descriptor alive

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Desc) and bool(library().dnnl_memory_desc_equal(self.ptr, other.ptr))

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_plain(self) -> bool:
        """Whether elements lie in Caffe's order without gaps."""
        return self == plain(self.dims)


def desc(dims: Sequence[int], tag: int) -> Desc:
    """A float32 descriptor of this shape; tag ANY leaves the layout to the primitive."""
    ptr = ctypes.c_void_p()
    check(
        library().dnnl_memory_desc_create_with_tag(ctypes.byref(ptr), len(dims), dims_array(dims), F32, tag),
        f"a descriptor of shape {tuple(dims)}",
    )
    assert ptr.value is not None
    return Desc(ptr.value, tuple(dims))


@functools.lru_cache(maxsize=4096)
def plain(dims: Dims) -> Desc:
    """Caffe's order."""
    return desc(dims, PLAIN_TAG[len(dims)])


def any_layout(dims: Sequence[int]) -> Desc:
    """The primitive shall choose."""
    return desc(dims, ANY)


def window(whole: Desc, dims: Dims, offsets: Dims) -> Desc:
    """The part of `whole` of these dimensions that starts at these offsets.

    Raises Unsupported where the part does not begin and end with a block of the layout.
    """
    ptr = ctypes.c_void_p()
    status = library().dnnl_memory_desc_create_submemory(
        ctypes.byref(ptr), whole.ptr, dims_array(dims), dims_array(offsets)
    )
    if status:
        raise Unsupported(f"a window {dims} at {offsets} of {whole.dims}")
    assert ptr.value is not None
    return Desc(ptr.value, dims, whole)


@final
class Engine:
    """A CPU engine, its stream and the scratchpad that all of its primitives share.

    Primitives of one engine run one after another, on the thread that made it.
    """

    def __init__(self) -> None:
        lib = library()
        self.ptr = ctypes.c_void_p()
        check(lib.dnnl_engine_create(ctypes.byref(self.ptr), 1, ctypes.c_size_t(0)), "a CPU engine")
        self.stream = ctypes.c_void_p()
        check(lib.dnnl_stream_create(ctypes.byref(self.stream), self.ptr, 1), "a stream")
        self._scratch: dict[int, Memory] = {}
        self._scratch_buffer: ctypes.Array[ctypes.c_char] | None = None
        self._scratch_nbytes = 0
        self._scratch_address = 0

    def scratchpad(self, descriptor: Desc) -> Memory:
        """A memory over the shared scratchpad, which grows to hold it."""
        memory = Memory(self, descriptor)
        self._scratch[id(memory)] = memory
        if descriptor.nbytes > self._scratch_nbytes:
            self._scratch_nbytes = descriptor.nbytes
            self._scratch_buffer = ctypes.create_string_buffer(descriptor.nbytes + 64)
            address = ctypes.addressof(self._scratch_buffer)
            self._scratch_address = address + (-address % 64)
            for old in self._scratch.values():
                old.point_to(self._scratch_address)
        else:
            memory.point_to(self._scratch_address)
        return memory

    def release(self, memories: Sequence[Memory]) -> None:
        """Forget scratchpad memories of primitives that are no more."""
        for memory in memories:
            self._scratch.pop(id(memory), None)


@final
class Memory:
    """A descriptor over a buffer that can be set later."""

    __slots__ = ("_parts", "address", "desc", "ptr")

    def __init__(self, engine: Engine, descriptor: Desc, address: int = 0) -> None:
        self.desc = descriptor
        self.address = address
        self._parts: list[Memory] = []
        self.ptr = ctypes.c_void_p()
        check(
            library().dnnl_memory_create(
                ctypes.byref(self.ptr), descriptor.ptr, engine.ptr, ctypes.c_void_p(address or None)
            ),
            "a memory",
        )

    def point_to(self, address: int) -> None:
        """Use the buffer at this address from now on."""
        self.address = address
        check(library().dnnl_memory_set_data_handle(self.ptr, ctypes.c_void_p(address)), "a data handle")
        for part in self._parts:
            part.point_to(address)

    def part(self, engine: Engine, descriptor: Desc) -> Memory:
        """A memory over the same buffer, wherever that goes, described otherwise."""
        part = Memory(engine, descriptor, self.address)
        self._parts.append(part)
        return part

    def __del__(self, library: Callable[[], ctypes.CDLL] = library) -> None:
        if self.ptr:
            library().dnnl_memory_destroy(self.ptr)
