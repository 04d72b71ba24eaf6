"""A CUDA device as a backend: CUDA arrays, and for every operator the class in this folder."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from typing import Any, Final, final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from dtrain.errors import BackendError, unknown_name
from dtrain.kernels import operator_files
from dtrain.kernels.array import Plain, Shape
from dtrain.kernels.backend import Backend, Operators
from dtrain.kernels.cuda.array import Access, CudaArray
from dtrain.kernels.cuda.card import Card
from dtrain.kernels.cuda.cudnn.library import Cudnn
from dtrain.kernels.cuda.device import Buffer, Device, Product
from dtrain.kernels.cuda.form import Form, ValueType
from dtrain.kernels.cuda.launch import Kernels
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.kernels.cuda.room import CudaRoom
from dtrain.kernels.cuda.storage import Storage
from dtrain.kernels.cuda.variables import Variable

HERE = "dtrain.kernels.cuda"
FOLDERS: Final = {  # by engine, the fastest first
    "DEFAULT": (f"{HERE}.cudnn", HERE),
    "CUDNN": (f"{HERE}.cudnn",),
    "CAFFE": (HERE,),
}
ENGINES = ("DEFAULT", "CAFFE", "CUDNN")
FOREIGN_ENGINES = ("MKLDNN", "MKL2017")  # CPU libraries that a prototxt may name: a GPU takes its own best
PRECISIONS: Final = {
    "fp32": (ValueType.FLOAT32, False),
    "tf32": (ValueType.FLOAT32, True),
    "bf16": (ValueType.BFLOAT16, False),
    "fp16": (ValueType.FLOAT16, False),
}
"""By name: the type of the values between layers, and whether products may round float32 to TF32."""
COMPLAINT: Final = (
    "engine CUDNN: cuDNN must support an operator's shapes and types, got {reason}; engine DEFAULT lets "
    "another implementation take it"
)


@final
class CudaBackend(Backend):
    """`device` is what computes, in `dtype` float32 or float64; `engine` is for layers that name none.

    `precision` is one of PRECISIONS, for layers that name none, or empty for what their net says or else
    float32: with 16 bits, operators that have a fast way keep the values between layers in that type, sums
    and parameters stay float32. Float64 has no other.
    """

    name = "cuda"
    precisions = tuple(PRECISIONS)
    fuses_sums = True
    takes_pixels = True

    def __init__(
        self,
        device: Device,
        *,
        dtype: DTypeLike = np.float32,
        engine: str = "DEFAULT",
        precision: str = "",
        autotune: bool = False,
    ) -> None:
        self.device = device
        self.card = Card(device, dtype)
        self.cudnn = Cudnn(device, autotune=autotune)
        self.dtype = self.card.dtype
        self.default_engine = engine
        self.asked_precision = precision
        self._take_precision(precision or "fp32")

    def _take_precision(self, precision: str) -> None:
        if precision not in PRECISIONS:
            raise BackendError(f"precision: {unknown_name('precision', precision, PRECISIONS)}")
        if self.dtype == np.float64:
            self.precisions = ("fp32",)
        if precision not in self.precisions:
            raise BackendError(f"precision: it must be fp32 in float64, got {precision}")
        self.precision = precision
        values, self.tf32 = PRECISIONS[precision]
        self.values = self.card.real if values is ValueType.FLOAT32 else values

    def array(self, shape: Shape) -> CudaArray:
        return CudaArray(Storage(self.card, shape), shape)

    def flat(self, count: int) -> Any:
        buffer = self.device.empty(count, self.dtype)
        self.device.clear(buffer)
        return buffer

    def flat_for_sums(self, count: int, allocate: Callable[[int], Plain]) -> Any:
        return self.flat(count)  # where backward writes; a communicator that needs host memory copies

    def host_memory(self, count: int, dtype: DTypeLike) -> NDArray[Any]:
        return self.device.host(count, dtype)

    def operators(self, engine: str, precision: str = "") -> CudaOperators:
        backend = self
        if precision and precision != self.precision:
            backend = copy.copy(self)  # the same card
            backend._take_precision(precision)
        return CudaOperators(backend, engine if engine != "DEFAULT" else self.default_engine)

    @property
    def memory_format(self) -> str:
        return "channels_last" if self.card.channels_last else "blocked"

    @memory_format.setter
    def memory_format(self, value: str) -> None:
        self.card.channels_last = value == "channels_last"

    def format_for(self, precisions: Set[str]) -> str:
        """cuDNN's tensor cores want the channels last; without them Caffe's order saves conversions."""
        wanted = any((precision or self.precision) != "fp32" for precision in precisions)
        return "channels_last" if wanted and self.cudnn.module is not None else "blocked"

    def replayer(self) -> GraphReplayer:
        return GraphReplayer(self.card)

    def room(self) -> CudaRoom:
        return CudaRoom()

    def memory_bytes(self) -> int:
        return self.device.memory_used()

    def synchronize(self) -> None:
        self.device.synchronize()

    def describe(self) -> str:
        library = "no cuDNN (engine CAFFE)" if self.default_engine == "CAFFE" else self.cudnn.describe()
        return f"{self.device.describe()}, {library}"

    # -- what operators use

    @property
    def form(self) -> Form:
        """What operators with a fast way offer for their tops."""
        return Form(self.values, self.card.channels_last)

    def kernels(self, file: str, values: ValueType | None = None) -> Kernels:
        """The kernels of a .cu file, their Value of this type; the type that is computed in unless given."""
        return self.card.kernels(file, values)

    def empty(self, count: int, dtype: DTypeLike | None = None) -> Buffer:
        """Device memory that an operator keeps, contents undefined; of the backend's type unless given."""
        return self.device.empty(count, self.dtype if dtype is None else dtype)

    def constants(
        self, values: NDArray[Any] | Sequence[int] | Sequence[float], dtype: DTypeLike | None = None
    ) -> Buffer:
        """Numbers that an operator's kernels look up, on the device."""
        self.card.leaves_the_device("writes constants")
        flat = np.ascontiguousarray(np.asarray(values, self.dtype if dtype is None else dtype)).reshape(-1)
        buffer = self.device.empty(flat.size, flat.dtype)
        self.device.upload(flat, buffer)
        return buffer

    def fetch(self, buffer: Buffer) -> Any:
        """A buffer's values on the host, behind all that is queued."""
        self.card.leaves_the_device("reads what the device has computed")
        values = self.device.host(buffer.size, buffer.dtype)
        self.device.download(buffer, values)
        return values

    def workspace(self, count: int) -> Buffer:
        """Room that all operators share: its contents last until the next operator runs."""
        return self.card.workspace(count)

    def ones(self, count: int) -> Buffer:
        """Ones: a product with them sums columns."""
        return self.card.ones(count)

    def variable(self, count: int, dtype: DTypeLike) -> Variable:
        """Numbers that change from pass to pass, for kernels to read from the device."""
        return self.card.variables.new(count, dtype)

    def gemm(
        self,
        product: Product,
        a: Access | Buffer,
        b: Access | Buffer,
        c: Access | Buffer,
        bias: Access | Buffer | None = None,
    ) -> None:
        """As the device's, on arrays; an array that beta reads must be an `update`."""
        if product.m * product.n * product.batch == 0:
            return
        sides = (side.buffer() if isinstance(side, Access) else side for side in (a, b, c, bias))
        self.device.gemm(replace(product, tf32=self.tf32), *sides)
        if isinstance(c, Access):
            c.written()

    def copy(self, source: Access | Buffer, target: Access | Buffer) -> None:
        """All of the source to the same elements of the target, on the device."""
        given = source.buffer() if isinstance(source, Access) else source
        room = target.buffer() if isinstance(target, Access) else target
        self.device.copy(given, room[: given.size])
        if isinstance(target, Access):
            target.written()

    def sum_columns(self, rows: int, columns: int, values: Access | Buffer, total: Access | Buffer) -> None:
        """total (columns,) += values (rows, columns) summed over the rows."""
        product = Product(1, columns, rows, beta=1.0)
        self.gemm(product, self.ones(rows), values, total)


@final
class CudaOperators(Operators):
    """Operators bound to a backend; the first folder whose class supports the arrays serves."""

    def __init__(self, backend: CudaBackend, engine: str) -> None:
        if engine not in (*ENGINES, *FOREIGN_ENGINES):
            raise BackendError(f"engine: {unknown_name('engine', engine, ENGINES)}")
        if engine == "CUDNN":
            backend.cudnn.require()
        self._backend = backend
        self._engine = "DEFAULT" if engine in FOREIGN_ENGINES else engine

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        candidates = operator_files.candidates(name, FOLDERS[self._engine])
        if not candidates:
            candidates = operator_files.candidates(name, (HERE,))  # cuDNN has no such operator at all
        if not candidates:
            raise BackendError(f"CUDA: operator {name} must have a file in {HERE}, got none")
        build = functools.partial(operator_files.build, candidates, COMPLAINT, self._backend)
        self.__dict__[name] = build
        return build
