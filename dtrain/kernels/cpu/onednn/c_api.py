"""The shared library itself, from the `onednn-cpu-gomp` wheel, and how its functions are called."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from importlib import metadata
from typing import Any, final

from dtrain.errors import BackendError
from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cpu.onednn.constants import MAX_DIMS, UNIMPLEMENTED

WHEEL = "onednn-cpu-gomp"


@final
class ExecArg(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_int), ("memory", ctypes.c_void_p))


@final
class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_int), ("minor", ctypes.c_int), ("patch", ctypes.c_int))


def dims_array(values: Sequence[int]) -> Any:
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


def check(status: int, what: str) -> None:
    if status == UNIMPLEMENTED:
        raise Unsupported(what)
    if status:
        raise BackendError(f"oneDNN: {what} must succeed, got status {status}")
