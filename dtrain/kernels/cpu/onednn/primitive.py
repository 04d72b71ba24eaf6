"""What is computed: primitive descriptors, and primitives bound to their memories."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, final

from dtrain.kernels.cpu.onednn.c_api import ExecArg, check, dims_array, library
from dtrain.kernels.cpu.onednn.constants import ELTWISE_RELU, Arg, Dims, Query
from dtrain.kernels.cpu.onednn.memory import Desc, Engine, Memory


@final
class Size(int):
    """A 64-bit argument of a primitive, where a plain int is a 32-bit one."""


@final
class Attributes:
    """A primitive's attributes: a scratchpad from outside, and maybe a ReLU after it."""

    def __init__(self, *, relu_slope: float | None = None) -> None:
        lib = library()
        self.ptr = ctypes.c_void_p()
        check(lib.dnnl_primitive_attr_create(ctypes.byref(self.ptr)), "attributes")
        check(lib.dnnl_primitive_attr_set_scratchpad_mode(self.ptr, 1), "a scratchpad mode")
        if relu_slope is not None:
            ops = ctypes.c_void_p()
            check(lib.dnnl_post_ops_create(ctypes.byref(ops)), "post-ops")
            check(
                lib.dnnl_post_ops_append_eltwise(
                    ops, ELTWISE_RELU, ctypes.c_float(relu_slope), ctypes.c_float(0)
                ),
                "a ReLU after the primitive",
            )
            check(lib.dnnl_primitive_attr_set_post_ops(self.ptr, ops), "post-ops")
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
        return dims_array(value)
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
        check(create(ctypes.byref(self.ptr), engine.ptr, *map(_pass, values)), kind)

    @staticmethod
    def reorder(engine: Engine, source: Desc, target: Desc) -> PrimitiveDesc:
        """From one layout to another."""
        self = PrimitiveDesc.__new__(PrimitiveDesc)
        self.engine = engine
        self.what = "reorder"
        self.ptr = ctypes.c_void_p()
        check(
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
        check(
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
        check(
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
        check(
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
        check(lib.dnnl_primitive_create(ctypes.byref(self._ptr), descriptor.ptr), descriptor.what)
        bound = {int(arg): memory for arg, memory in memories.items()}
        scratch = descriptor.optional_desc(Query.SCRATCHPAD)
        self._scratch: list[Memory] = []
        if scratch is not None:
            memory = descriptor.engine.scratchpad(scratch)
            bound[Arg.SCRATCHPAD] = memory
            self._scratch.append(memory)
        args = (ExecArg * len(bound))(*[ExecArg(arg, memory.ptr) for arg, memory in bound.items()])
        self._keep = bound
        self._execute: Callable[..., int] = lib.dnnl_primitive_execute
        self._call = (self._ptr, descriptor.engine.stream, ctypes.c_int(len(bound)), args)

    def __call__(self) -> None:
        status = self._execute(*self._call)
        if status:
            check(status, self.desc.what)

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
