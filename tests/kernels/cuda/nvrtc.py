"""NVIDIA's run-time compiler without a card: CUDA C++ to a cubin for any architecture."""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
from collections.abc import Sequence
from pathlib import Path


def find() -> str | None:
    """The library of the wheel nvidia-cuda-nvrtc, or the system's; None where there is none."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found = sorted(
        path
        for folder in folders
        for path in folder.glob("*/lib/libnvrtc.so.*")
        if "builtins" not in path.name and "alt" not in path.name
    )
    return str(found[-1]) if found else ctypes.util.find_library("nvrtc")


class CompileError(Exception):
    """What the compiler says."""


def cubin(library: str, code: str, name: str, options: Sequence[str]) -> bytes:
    """Machine code; CompileError with the compiler's log where it refuses."""
    nvrtc = ctypes.CDLL(library)
    program = ctypes.c_void_p()
    _check(nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), name.encode(), 0, None, None))
    try:
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if nvrtc.nvrtcCompileProgram(program, len(options), given):
            size = ctypes.c_size_t()
            _check(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            _check(nvrtc.nvrtcGetProgramLog(program, log))
            raise CompileError(log.value.decode())
        size = ctypes.c_size_t()
        _check(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        made = ctypes.create_string_buffer(size.value)
        _check(nvrtc.nvrtcGetCUBIN(program, made))
        return made.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _check(status: int) -> None:
    if status:
        raise CompileError(f"NVRTC status {status}")
