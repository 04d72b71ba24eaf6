"""Every name that a device uses of CuPy and of nvmath-python is there, in what is installed here."""

from __future__ import annotations

import importlib
import re
from functools import reduce
from typing import Any

import pytest

from dtrain.kernels.cuda.device import SOURCES

FILES = ("cupy_device.py", "cupy_stream.py", "cupy_blas.py", "faults.py", "stack.py")
NAMES = re.compile(r"\b(?:_cupy|cupy)\.((?:cuda(?:\.\w+)+)|(?:[a-zA-Z_]\w*))")
IN_PARTS = re.compile(r"\b((?:runtime|driver|memory|compiler)\.[a-zA-Z]\w+)")
OF_CUBLAS_LT = re.compile(r"\b(?:_lt|lt|library)\.(\w+)")
OF_CUBLAS = re.compile(r"\b_blas\.(\w+)")
OBJECTS = {  # what is made by those names, and what is asked of it
    "cuda.Stream": "use synchronize record wait_event begin_capture end_capture",
    "cuda.Event": "done synchronize",
    "cuda.Graph": "launch upload",
    "cuda.MemoryPointer": "ptr copy_from_host_async copy_to_host_async copy_from_device_async memset_async",
    "cuda.Device": "use compute_capability",
    "cuda.MemoryPool": "used_bytes free_bytes get_limit",
    "RawModule": "get_function",
    "RawKernel": "kernel max_dynamic_shared_size_bytes",
    "ndarray": "data size dtype nbytes view __getitem__",
}


def found(module: Any, name: str) -> bool:
    try:
        reduce(getattr, name.split("."), module)
    except AttributeError:
        return False
    return True


def test_cupy_has_every_name_that_a_device_uses() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    text = "".join((SOURCES / file).read_text() for file in FILES)
    names = {name for name in NAMES.findall(text) if name != "cuda"}
    names |= {f"cuda.{name}" for name in IN_PARTS.findall(text)}
    names |= {f"{kind}.{name}" for kind, asked in OBJECTS.items() for name in asked.split()}
    assert len(names) > 40, "names are found"
    assert sorted(name for name in names if not found(cupy, name)) == []


def test_nvmath_has_every_name_that_products_use() -> None:
    text = (SOURCES / "cublas_lt.py").read_text()
    for pattern, module in ((OF_CUBLAS_LT, "cublasLt"), (OF_CUBLAS, "cublas")):
        bindings = importlib.import_module(f"nvmath.bindings.{module}")
        names = set(pattern.findall(text))
        assert names
        assert sorted(name for name in names if not found(bindings, name)) == []
    chosen = re.findall(r"\b(?:attributes|epilogs|kinds|codes|types)\.([A-Z]\w+)", text)
    assert len(set(chosen)) > 15
