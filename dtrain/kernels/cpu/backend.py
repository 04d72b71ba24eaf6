"""The CPU: NumPy arrays, and for every operator the fastest implementation that is installed."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Set
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError, unknown_name
from dtrain.kernels import operator_files
from dtrain.kernels.array import Plain, Shape
from dtrain.kernels.backend import Backend, Operators
from dtrain.kernels.cpu import threads
from dtrain.kernels.cpu.array import CpuArray
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.storage import aligned_zeros

HERE = "dtrain.kernels.cpu"
FOLDERS = {
    "DEFAULT": (f"{HERE}.onednn", f"{HERE}.jit", HERE),
    "CUDNN": (f"{HERE}.onednn", f"{HERE}.jit", HERE),  # means the GPU's library; a CPU takes its own best
    "CAFFE": (HERE,),
    "MKLDNN": (f"{HERE}.onednn",),
    "MKL2017": (f"{HERE}.onednn",),
}
COMPLAINT: Final = "CPU: an operator must support its shapes, got {reason}"


@final
class CpuBackend(Backend):
    """`dtype` float32 or float64 (which only NumPy computes); `engine` is for layers that name none.

    memory_format: "blocked" lets oneDNN choose every layout, "channels_last" asks for (N, H, W, C).
    """

    name = "cpu"
    precisions = ("fp32",)
    fuses_sums = False
    takes_pixels = False

    def __init__(
        self,
        *,
        dtype: DTypeLike = np.float32,
        num_threads: int | None = None,
        engine: str = "DEFAULT",
        memory_format: str = "blocked",
    ) -> None:
        self.dtype = np.dtype(dtype)
        self.memory_format = memory_format
        self.default_engine = engine
        self.num_threads = num_threads
        self.engine: dnnl.Engine | None = None
        self.without_onednn = ""  # the reason, for the start-up line
        if self.dtype == np.float32 and engine != "CAFFE":
            try:
                self.engine = dnnl.Engine()
            except BackendError as error:
                self.without_onednn = str(error)
                if engine in ("MKLDNN", "MKL2017"):
                    raise
        if num_threads is not None:
            threads.use(num_threads)

    def array(self, shape: Shape) -> CpuArray:
        return CpuArray(shape, self.dtype, self.engine)

    def flat(self, count: int) -> Plain:
        return aligned_zeros(count, self.dtype)

    def flat_for_sums(self, count: int, allocate: Callable[[int], Plain]) -> Plain:
        return allocate(count)

    def host_memory(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        memory = aligned_zeros(count, dtype)
        memory.fill(0)  # now, so that no page is first touched in a step
        return memory

    def operators(self, engine: str, precision: str = "") -> CpuOperators:
        assert precision in ("", *self.precisions), "who asks looks at `precisions` first"
        return CpuOperators(self, engine if engine != "DEFAULT" else self.default_engine)

    def format_for(self, precisions: Set[str]) -> str:
        return "" if self.engine is not None else self.memory_format

    def replayer(self) -> None:
        """Python is a small part of a step on a CPU."""

    def room(self) -> None:
        """Main memory is large."""

    def memory_bytes(self) -> None:
        """Main memory is the system's to tell."""

    def synchronize(self) -> None:
        """Operators queue nothing."""

    def describe(self) -> str:
        count = self.num_threads or threads.in_use()
        library = (
            f"oneDNN {dnnl.version()}" if self.engine else f"NumPy ({self.without_onednn or 'engine CAFFE'})"
        )
        return f"CPU {platform.machine()}, {count} thread{'s' if count != 1 else ''}, {library}"


@final
class CpuOperators(Operators):
    """Operators bound to a backend; the first folder whose class supports the arrays serves."""

    def __init__(self, backend: CpuBackend, engine: str) -> None:
        if engine not in FOLDERS:
            raise BackendError(f"engine: {unknown_name('engine', engine, FOLDERS)}")
        self._backend = backend
        self._engine = engine

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        candidates = operator_files.candidates(name, FOLDERS[self._engine])
        if not candidates and self._engine in ("MKLDNN", "MKL2017"):
            candidates = operator_files.candidates(
                name, FOLDERS["DEFAULT"]
            )  # the library has no such operator at all
        if not candidates:
            raise BackendError(f"CPU: operator {name} must have a file in {HERE}, got none")
        build = functools.partial(operator_files.build, candidates, COMPLAINT, self._backend)
        self.__dict__[name] = build
        return build
