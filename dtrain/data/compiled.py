"""Loops that LLVM compiles on first use, and that can run without holding Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile, keep the machine code on disk beside the source, and release the lock while it runs."""
    return cast(_Function, numba.njit(nogil=True, cache=True)(function))


def compiled_fused(function: _Function) -> _Function:
    """`compiled`, where a product may be added without being rounded first."""
    return cast(_Function, numba.njit(nogil=True, cache=True, fastmath={"contract"})(function))


def compiled_brief(function: _Function) -> _Function:
    """`compiled` for some microseconds, in which letting go of the lock costs more than it gives."""
    return cast(_Function, numba.njit(cache=True)(function))


def _pointer(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _context.get_value_type(signature.return_type))

    return types.voidptr(address), generate


pointer: Any = intrinsic(_pointer)
"""An integer address as a pointer, inside compiled functions."""

carray: Any = numba.carray  # type: ignore[attr-defined, unused-ignore]  # numba's __init__ names no exports
"""carray(pointer, shape, dtype): the memory there as an array, inside compiled functions."""


def _prefetch(_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        reads, keep, data = number(0), number(3), number(1)
        builder.call(function, [builder.inttoptr(arguments[0], byte), reads, keep, data])
        return context.get_dummy_value()

    return types.void(address), generate


prefetch: Any = intrinsic(_prefetch)
"""Have the processor load the cache line at an address, whatever it is, inside compiled functions."""
