"""oneDNN's C interface by ctypes: descriptors, memories and bound primitives.

The shared library comes from the `onednn-cpu-gomp` wheel. Source of names and values: oneDNN's
dnnl_types.h and dnnl_common_types.h, version 3.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from importlib import metadata
from typing import Any, TypeAlias, final

from dtrain.errors import BackendError

MAX_DIMS = 12
MAX_PLAIN_DIMS = 6  # with a tag of their own
Dims: TypeAlias = tuple[int, ...]

WHEEL = "onednn-cpu-gomp"
F32 = 3
ANY = 1
PLAIN_TAG = {1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7}
CHANNELS_LAST_TAG = {4: 22}

FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD, BACKWARD_DATA = 64, 96, 128, 160
CONVOLUTION_DIRECT, DECONVOLUTION_DIRECT = 1, 4
ELTWISE_RELU, ELTWISE_RELU_FROM_DST = 32, 256
POOLING_MAX, POOLING_AVG_INCLUDE_PADDING, POOLING_AVG_EXCLUDE_PADDING = 511, 767, 1023
LRN_ACROSS_CHANNELS, LRN_WITHIN_CHANNEL = 2815, 3071
BINARY_ADD, BINARY_MUL = 131056, 131057
UNIMPLEMENTED = 3


class Arg(IntEnum):
    """Which argument of a primitive a memory is."""

    SRC = 1
    SRC_1 = 2
    DST = 17
    WEIGHTS = 33
    BIAS = 41
    MEAN = 49
    VARIANCE = 50
    SCALE = 51
    SHIFT = 52
    WORKSPACE = 64
    SCRATCHPAD = 80
    DIFF_SRC = 129
    DIFF_DST = 145
    DIFF_WEIGHTS = 161
    DIFF_BIAS = 169
    DIFF_SCALE = 255
    DIFF_SHIFT = 256
    MULTIPLE_SRC = 1024


class Query(IntEnum):
    """What a primitive descriptor is asked for."""

    IMPLEMENTATION = 8
    SRC = 129
    DIFF_SRC = 130
    WEIGHTS = 131
    DIFF_WEIGHTS = 132
    DST = 133
    DIFF_DST = 134
    WORKSPACE = 135
    SCRATCHPAD = 136


class Unsupported(Exception):
    """oneDNN has no implementation of an operator with these shapes or types."""


@final
class _ExecArg(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_int), ("memory", ctypes.c_void_p))


@final
class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


def _dims(values: Sequence[int]) -> Any:
    return (ctypes.c_int64 * MAX_DIMS)(*values)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded shared library; raises BackendError where the wheel is not installed."""
    try:
        files = metadata.files(WHEEL) or []
    except metadata.PackageNotFoundError:
        raise BackendError(
            f"oneDNN: the package {WHEEL} must be installed, got none; `pip install {WHEEL}` (x86-64 Linux)"
        ) from None
    path = next((str(f.locate()) for f in files if f.name == "libdnnl.so.3"), None)
    if path is None:
        raise BackendError(f"oneDNN: the package {WHEEL} must hold libdnnl.so.3, got none; reinstall it")
    try:
        lib = ctypes.CDLL(path)
    except OSError as error:
        raise BackendError(f"oneDNN: {path} must load, got {error}; install libgomp1") from None
    lib.dnnl_primitive_desc_query_md.restype = ctypes.c_void_p
    lib.dnnl_primitive_desc_query_md.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
    lib.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
    lib.dnnl_memory_desc_get_size.argtypes = [ctypes.c_void_p]
    lib.dnnl_memory_desc_equal.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    lib.dnnl_version.restype = ctypes.POINTER(_Version)
    return lib


@functools.cache
def version() -> str:
    """For example "3.2.0"."""
    v = library().dnnl_version().contents
    return f"{v.major}.{v.minor}.{v.patch}"


def _check(status: int, what: str) -> None:
    if status == UNIMPLEMENTED:
        raise Unsupported(what)
    if status:
        raise BackendError(f"oneDNN: {what} must succeed, got status {status}")


@final
class Size(int):
    """A 64-bit argument of a primitive, where a plain int is a 32-bit one."""


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
    _check(
        library().dnnl_memory_desc_create_with_tag(ctypes.byref(ptr), len(dims), _dims(dims), F32, tag),
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
        ctypes.byref(ptr), whole.ptr, _dims(dims), _dims(offsets)
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
        _check(lib.dnnl_engine_create(ctypes.byref(self.ptr), 1, ctypes.c_size_t(0)), "a CPU engine")
        self.stream = ctypes.c_void_p()
        _check(lib.dnnl_stream_create(ctypes.byref(self.stream), self.ptr, 1), "a stream")
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
        _check(
            library().dnnl_memory_create(
                ctypes.byref(self.ptr), descriptor.ptr, engine.ptr, ctypes.c_void_p(address or None)
            ),
            "a memory",
        )

    def point_to(self, address: int) -> None:
        """Use the buffer at this address from now on."""
        self.address = address
        _check(library().dnnl_memory_set_data_handle(self.ptr, ctypes.c_void_p(address)), "a data handle")
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


@final
class Attributes:
    """A primitive's attributes: a scratchpad from outside, and maybe a ReLU after it."""

    def __init__(self, *, relu_slope: float | None = None) -> None:
        lib = library()
        self.ptr = ctypes.c_void_p()
        _check(lib.dnnl_primitive_attr_create(ctypes.byref(self.ptr)), "attributes")
        _check(lib.dnnl_primitive_attr_set_scratchpad_mode(self.ptr, 1), "a scratchpad mode")
        if relu_slope is not None:
            ops = ctypes.c_void_p()
            _check(lib.dnnl_post_ops_create(ctypes.byref(ops)), "post-ops")
            _check(
                lib.dnnl_post_ops_append_eltwise(
                    ops, ELTWISE_RELU, ctypes.c_float(relu_slope), ctypes.c_float(0)
                ),
                "a ReLU after the primitive",
            )
            _check(lib.dnnl_primitive_attr_set_post_ops(self.ptr, ops), "post-ops")
            lib.dnnl_post_ops_destroy(ops)

    def __del__(self, library: Callable[[], ctypes.CDLL] = library) -> None:
        library().dnnl_primitive_attr_destroy(self.ptr)


@functools.cache
def default_attributes() -> Attributes:
    """A scratchpad from outside and nothing else."""
    return Attributes()


Value: TypeAlias = "Desc | PrimitiveDesc | Attributes | int | float | Dims | None"


def _pass(value: Value) -> Any:
    if isinstance(value, (Desc, Attributes, PrimitiveDesc)):
        return value.ptr
    if isinstance(value, Size):
        return ctypes.c_int64(value)
    if isinstance(value, tuple):
        return _dims(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    if value is None:
        return ctypes.c_void_p(None)
    return value


@final
class PrimitiveDesc:
    """One implementation chosen for shapes and layouts."""

    __slots__ = ("engine", "ptr", "what")

    def __init__(self, engine: Engine, kind: str, *values: Value) -> None:
        """`kind` and `values` as in dnnl_<kind>_primitive_desc_create after its engine; Dims are tuples.

        Raises Unsupported where oneDNN has no implementation.
        """
        self.engine = engine
        self.what = kind
        self.ptr = ctypes.c_void_p()
        create = getattr(library(), f"dnnl_{kind}_primitive_desc_create")
        _check(create(ctypes.byref(self.ptr), engine.ptr, *map(_pass, values)), kind)

    @staticmethod
    def reorder(engine: Engine, source: Desc, target: Desc) -> PrimitiveDesc:
        """From one layout to another."""
        self = PrimitiveDesc.__new__(PrimitiveDesc)
        self.engine = engine
        self.what = "reorder"
        self.ptr = ctypes.c_void_p()
        _check(
            library().dnnl_reorder_primitive_desc_create(
                ctypes.byref(self.ptr),
                source.ptr,
                engine.ptr,
                target.ptr,
                engine.ptr,
                default_attributes().ptr,
            ),
            "reorder",
        )
        return self

    @staticmethod
    def concat(engine: Engine, axis: int, sources: Sequence[Desc]) -> PrimitiveDesc:
        """target = the sources one after the other along an axis, in a layout of oneDNN's choice."""
        self = PrimitiveDesc.__new__(PrimitiveDesc)
        self.engine = engine
        self.what = "concat"
        self.ptr = ctypes.c_void_p()
        count = len(sources)
        _check(
            library().dnnl_concat_primitive_desc_create(
                ctypes.byref(self.ptr),
                engine.ptr,
                None,
                count,
                axis,
                (ctypes.c_void_p * count)(*[s.ptr for s in sources]),
                default_attributes().ptr,
            ),
            "concat",
        )
        return self

    @staticmethod
    def sum(engine: Engine, target: Desc, sources: Sequence[Desc], scales: Sequence[float]) -> PrimitiveDesc:
        """target = sum of scale * source."""
        self = PrimitiveDesc.__new__(PrimitiveDesc)
        self.engine = engine
        self.what = "sum"
        self.ptr = ctypes.c_void_p()
        count = len(sources)
        _check(
            library().dnnl_sum_primitive_desc_create(
                ctypes.byref(self.ptr),
                engine.ptr,
                target.ptr,
                count,
                (ctypes.c_float * count)(*scales),
                (ctypes.c_void_p * count)(*[s.ptr for s in sources]),
                default_attributes().ptr,
            ),
            "sum",
        )
        return self

    def __del__(self, library: Callable[[], ctypes.CDLL] = library) -> None:
        if self.ptr:
            library().dnnl_primitive_desc_destroy(self.ptr)

    def desc(self, query: Query, dims: Dims) -> Desc:
        """The layout chosen for an argument."""
        ptr = library().dnnl_primitive_desc_query_md(self.ptr, int(query), 0)
        assert ptr, f"{self.what} has no {query.name}"
        return Desc(ptr, dims, self)

    def optional_desc(self, query: Query) -> Desc | None:
        """A workspace's or scratchpad's descriptor, or None where there is none."""
        ptr = library().dnnl_primitive_desc_query_md(self.ptr, int(query), 0)
        if not ptr:
            return None
        found = Desc(ptr, (), self)
        return found if found.nbytes else None

    @property
    def implementation(self) -> str:
        """oneDNN's name of it, for example "brgconv:avx512_core"."""
        name = ctypes.c_char_p()
        _check(
            library().dnnl_primitive_desc_query(self.ptr, int(Query.IMPLEMENTATION), 0, ctypes.byref(name)),
            "an implementation's name",
        )
        return (name.value or b"").decode()

    @property
    def is_slow(self) -> bool:
        """Whether this is oneDNN's unoptimised reference code."""
        return self.implementation.startswith(("ref", "simple"))


@final
class Primitive:
    """A primitive bound to its memories; calling it runs it."""

    __slots__ = ("_call", "_execute", "_keep", "_ptr", "_scratch", "desc")

    def __init__(self, descriptor: PrimitiveDesc, memories: Mapping[int, Memory]) -> None:
        lib = library()
        self.desc = descriptor
        self._ptr = ctypes.c_void_p()
        _check(lib.dnnl_primitive_create(ctypes.byref(self._ptr), descriptor.ptr), descriptor.what)
        bound = {int(arg): memory for arg, memory in memories.items()}
        scratch = descriptor.optional_desc(Query.SCRATCHPAD)
        self._scratch: list[Memory] = []
        if scratch is not None:
            memory = descriptor.engine.scratchpad(scratch)
            bound[Arg.SCRATCHPAD] = memory
            self._scratch.append(memory)
        args = (_ExecArg * len(bound))(*[_ExecArg(arg, memory.ptr) for arg, memory in bound.items()])
        self._keep = bound
        self._execute: Callable[..., int] = lib.dnnl_primitive_execute
        self._call = (self._ptr, descriptor.engine.stream, ctypes.c_int(len(bound)), args)

    def __call__(self) -> None:
        status = self._execute(*self._call)
        if status:
            _check(status, self.desc.what)

    def __del__(self, library: Callable[[], ctypes.CDLL] = library) -> None:
        if self._ptr:
            library().dnnl_primitive_destroy(self._ptr)
        if self._scratch:
            self.desc.engine.release(self._scratch)


def reorder(source: Memory, target: Memory, engine: Engine) -> Primitive:
    """Copies `source` into `target`'s layout."""
    return Primitive(
        PrimitiveDesc.reorder(engine, source.desc, target.desc), {Arg.SRC: source, Arg.DST: target}
    )
