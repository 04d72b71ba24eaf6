"""A CUDA device as a backend: CUDA arrays, and for every operator the class in this folder."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError, unknown_name
from dtrain.kernels.array import Plain, Shape
from dtrain.kernels.backend import Backend, Operators
from dtrain.kernels.cuda.array import Access, CudaArray, Storage
from dtrain.kernels.cuda.device import Buffer, Device, Product
from dtrain.kernels.cuda.launch import C_TYPES, Kernels

HERE = "dtrain.kernels.cuda"
ENGINES = ("DEFAULT", "CAFFE", "CUDNN")
FOREIGN_ENGINES = ("MKLDNN", "MKL2017")  # CPU libraries that a prototxt may name: a GPU takes its own best


@final
class CudaBackend(Backend):
    """`device` is what computes; `dtype` float32 or float64; `engine` is for layers that name none.

    Every engine gets the kernels of this folder, which are engine CAFFE: cuDNN is not used yet, as `describe`
    tells by what it names.
    """

    name = "cuda"

    def __init__(self, device: Device, *, dtype: DTypeLike = np.float32, engine: str = "DEFAULT") -> None:
        self.device = device
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if self.dtype not in C_TYPES:
            raise BackendError(f"CUDA: dtype must be float32 or float64, got {self.dtype}")
        self.default_engine = engine
        self._kernels: dict[str, Kernels] = {}
        self._workspace: Buffer | None = None
        self._ones: Buffer | None = None

    def array(self, shape: Shape) -> CudaArray:
        count = 1
        for extent in shape:
            count *= extent
        return CudaArray(Storage(self.device, count, self.dtype), shape)

    def flat(self, count: int) -> Any:
        buffer = self.device.empty(count, self.dtype)
        self.device.clear(buffer)
        return buffer

    def flat_for_sums(self, count: int, allocate: Callable[[int], Plain]) -> Any:
        return self.flat(count)  # where backward writes; a communicator that needs host memory copies

    def operators(self, engine: str) -> CudaOperators:
        return CudaOperators(self, engine if engine != "DEFAULT" else self.default_engine)

    def synchronize(self) -> None:
        self.device.synchronize()

    def describe(self) -> str:
        return self.device.describe()

    # -- what operators use

    def kernels(self, file: str) -> Kernels:
        """The kernels of a .cu file for this backend's type."""
        found = self._kernels.get(file)
        if found is None:
            found = self._kernels[file] = Kernels(self.device, file, self.dtype)
        return found

    def empty(self, count: int, dtype: DTypeLike | None = None) -> Buffer:
        """Device memory that an operator keeps, contents undefined; of the backend's type unless given."""
        return self.device.empty(count, self.dtype if dtype is None else dtype)

    def constants(
        self, values: NDArray[Any] | Sequence[int] | Sequence[float], dtype: DTypeLike | None = None
    ) -> Buffer:
        """Numbers that an operator's kernels look up, on the device."""
        flat = np.ascontiguousarray(np.asarray(values, self.dtype if dtype is None else dtype)).reshape(-1)
        buffer = self.device.empty(flat.size, flat.dtype)
        self.device.upload(flat, buffer)
        return buffer

    def fetch(self, buffer: Buffer) -> Any:
        """A buffer's values on the host, behind all that is queued."""
        values = self.device.host(buffer.size, buffer.dtype)
        self.device.download(buffer, values)
        return values

    def workspace(self, count: int) -> Buffer:
        """Room that all operators share: its contents last until the next operator runs."""
        if self._workspace is None or self._workspace.size < count:
            self._workspace = self.device.empty(count, self.dtype)
        return self._workspace[:count]

    def ones(self, count: int) -> Buffer:
        """Ones: a product with them sums columns."""
        if self._ones is None or self._ones.size < count:
            self._ones = self.constants(np.ones(count))
        return self._ones[:count]

    def gemm(self, product: Product, a: Access | Buffer, b: Access | Buffer, c: Access | Buffer) -> None:
        """As the device's, on arrays; an array that beta reads must be an `update`."""
        if product.m * product.n * product.batch == 0:
            return
        x, y, z = (side.buffer() if isinstance(side, Access) else side for side in (a, b, c))
        self.device.gemm(product, x, y, z)
        if isinstance(c, Access):
            c.array.storage.written()

    def copy(self, source: Access | Buffer, target: Access | Buffer) -> None:
        """All of the source to the same elements of the target, on the device."""
        given = source.buffer() if isinstance(source, Access) else source
        room = target.buffer() if isinstance(target, Access) else target
        self.device.copy(given, room[: given.size])
        if isinstance(target, Access):
            target.array.storage.written()

    def sum_columns(self, rows: int, columns: int, values: Access | Buffer, total: Access | Buffer) -> None:
        """total (columns,) += values (rows, columns) summed over the rows."""
        product = Product(1, columns, rows, beta=1.0)
        self.gemm(product, self.ones(rows), values, total)


@final
class CudaOperators(Operators):
    """Operators bound to a backend."""

    def __init__(self, backend: CudaBackend, engine: str) -> None:
        if engine not in (*ENGINES, *FOREIGN_ENGINES):
            raise BackendError(f"engine: {unknown_name('engine', engine, ENGINES)}")
        self._backend = backend

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        build = functools.partial(_operator(name), self._backend)
        self.__dict__[name] = build
        return build


@functools.cache
def _files() -> dict[str, str]:
    """Module names by their letters alone: "innerproduct" -> "inner_product"."""
    path = importlib.import_module(HERE).__path__
    return {m.name.replace("_", ""): m.name for m in pkgutil.iter_modules(path)}


@functools.cache
def _operator(name: str) -> Callable[..., Any]:
    module = _files().get(name.lower())
    if module is None:
        raise BackendError(f"CUDA: operator {name} must have a file in {HERE}, got none")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{HERE}.{module}"), name)
    return found
