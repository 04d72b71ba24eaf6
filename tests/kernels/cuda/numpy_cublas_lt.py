"""cuBLASLt for a stand-in of CuPy: products from their definition, as descriptors and layouts describe them.

The enums, and the types of all attributes, are those of nvmath-python's bindings, which need no card.
"""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from nvmath.bindings import cublas
from nvmath.bindings import cublasLt as real

from dtrain.kernels.cuda.form import ValueType, to_floats
from tests.kernels.cuda.cpu_device import from_floats
from tests.kernels.cuda.numpy_streams import Machine

R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14  # cudaDataType_t
VALUES = {
    R_32F: ValueType.FLOAT32,
    R_64F: ValueType.FLOAT64,
    R_16F: ValueType.FLOAT16,
    R_16BF: ValueType.BFLOAT16,
}
KINDS = cublas.ComputeType
# Compute type, scale type, A and B, C and D: cublasLtMatmul's table, as far as these products go.
SUPPORTED = {
    (KINDS.COMPUTE_32F, R_32F, R_32F, R_32F),
    (KINDS.COMPUTE_32F_FAST_TF32, R_32F, R_32F, R_32F),
    (KINDS.COMPUTE_32F, R_32F, R_16F, R_16F),
    (KINDS.COMPUTE_32F, R_32F, R_16F, R_32F),
    (KINDS.COMPUTE_32F, R_32F, R_16BF, R_16BF),
    (KINDS.COMPUTE_32F, R_32F, R_16BF, R_32F),
    (KINDS.COMPUTE_64F, R_64F, R_64F, R_64F),
}
WORKSPACE_BYTES = 1 << 20  # of every algorithm
EPILOGS = real.Epilogue


class cuBLASLtError(Exception):
    """As the bindings raise it."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(cublas.Status(status).name)


@final
@dataclass(frozen=True)
class Layout:
    """A column-major matrix, or several."""

    kind: int
    rows: int
    columns: int
    leading: int
    batch: int = 1
    stride: int = 0


@final
@dataclass
class Operation:
    """What a descriptor says."""

    compute: int
    scale: int
    attributes: dict[Any, int] = field(default_factory=dict)


@final
class CublasLt:
    """The functions of nvmath.bindings.cublasLt that products need."""

    MatmulDescAttribute = real.MatmulDescAttribute
    MatrixLayoutAttribute = real.MatrixLayoutAttribute
    MatmulPreferenceAttribute = real.MatmulPreferenceAttribute
    Epilogue = real.Epilogue
    ReductionScheme = real.ReductionScheme
    cuBLASLtError = cuBLASLtError
    matmul_heuristic_result_dtype = real.matmul_heuristic_result_dtype
    get_matmul_desc_attribute_dtype = staticmethod(real.get_matmul_desc_attribute_dtype)
    get_matrix_layout_attribute_dtype = staticmethod(real.get_matrix_layout_attribute_dtype)
    get_matmul_preference_attribute_dtype = staticmethod(real.get_matmul_preference_attribute_dtype)

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._numbers = itertools.count(1)
        self.operations: dict[int, Operation] = {}
        self.layouts: dict[int, Layout] = {}
        self._preferences: dict[int, dict[Any, int]] = {}
        self._algorithms: dict[int, tuple[Any, ...]] = {}
        self.heuristics = 0
        self.calls: list[Operation] = []

    def create(self) -> int:
        return 7

    def get_version(self) -> int:
        return 130500

    # -- descriptors

    def matmul_desc_create(self, compute: int, scale: int) -> int:
        return self._new(self.operations, Operation(int(KINDS(compute)), scale))

    def matmul_desc_set_attribute(self, operation: int, attribute: int, data: int, nbytes: int) -> None:
        kind = real.MatmulDescAttribute(attribute)
        value = value_at(data, nbytes, real.get_matmul_desc_attribute_dtype(kind))
        self.operations[operation].attributes[kind] = value

    def matmul_desc_destroy(self, operation: int) -> None:
        del self.operations[operation]

    def matrix_layout_create(self, kind: int, rows: int, columns: int, leading: int) -> int:
        assert leading >= rows > 0
        assert columns > 0
        return self._new(self.layouts, Layout(kind, rows, columns, leading))

    def matrix_layout_set_attribute(self, layout: int, attribute: int, data: int, nbytes: int) -> None:
        kind = real.MatrixLayoutAttribute(attribute)
        value = value_at(data, nbytes, real.get_matrix_layout_attribute_dtype(kind))
        name = {kind.BATCH_COUNT: "batch", kind.STRIDED_BATCH_OFFSET: "stride"}[kind]
        old = self.layouts[layout]
        self.layouts[layout] = Layout(**{**vars(old), name: value})

    def matrix_layout_destroy(self, layout: int) -> None:
        del self.layouts[layout]

    def matmul_preference_create(self) -> int:
        return self._new(self._preferences, {})

    def matmul_preference_set_attribute(
        self, preference: int, attribute: int, data: int, nbytes: int
    ) -> None:
        kind = real.MatmulPreferenceAttribute(attribute)
        value = value_at(data, nbytes, real.get_matmul_preference_attribute_dtype(kind))
        self._preferences[preference][kind] = value

    def matmul_preference_destroy(self, preference: int) -> None:
        del self._preferences[preference]

    def _new(self, table: dict[int, Any], made: Any) -> int:
        number = next(self._numbers)
        table[number] = made
        return number

    # -- products

    def matmul_algo_get_heuristic(
        self,
        handle: int,
        operation: int,
        a: int,
        b: int,
        c: int,
        d: int,
        preference: int,
        wanted: int,
        results: int,
        count: int,
    ) -> None:
        self.heuristics += 1
        self._machine.fail("heuristic")
        if self._machine.is_capturing:
            raise cuBLASLtError(cublas.Status.INTERNAL_ERROR)  # as CUDA 13.3 does
        does, wishes = self.operations[operation], self._preferences[preference]
        kinds = tuple(self.layouts[layout].kind for layout in (a, b, c, d))
        assert kinds[0] == kinds[1]
        assert kinds[2] == kinds[3]
        if (does.compute, does.scale, kinds[0], kinds[2]) not in SUPPORTED:
            raise cuBLASLtError(cublas.Status.NOT_SUPPORTED)
        epilog = EPILOGS(does.attributes.get(real.MatmulDescAttribute.EPILOGUE, EPILOGS.DEFAULT))
        if epilog != EPILOGS.DEFAULT and kinds[0] == R_64F:
            raise cuBLASLtError(cublas.Status.NOT_SUPPORTED)
        names = real.MatmulPreferenceAttribute
        assert wishes[names.MAX_WORKSPACE_BYTES] >= WORKSPACE_BYTES
        if kinds[2] in (R_16F, R_16BF):
            assert wishes[names.REDUCTION_SCHEME_MASK] == real.ReductionScheme.COMPUTE_TYPE
        number = next(self._numbers)
        aligned = tuple(
            wishes[name]
            for name in (
                names.MIN_ALIGNMENT_A_BYTES,
                names.MIN_ALIGNMENT_B_BYTES,
                names.MIN_ALIGNMENT_C_BYTES,
                names.MIN_ALIGNMENT_D_BYTES,
            )
        )
        self._algorithms[number] = (operation, a, b, c, d, aligned)
        given = memory_at(results, wanted * real.matmul_heuristic_result_dtype.itemsize, np.uint8)
        table = given.view(real.matmul_heuristic_result_dtype)
        table["state"] = cublas.Status.NOT_SUPPORTED  # the first of them is none that this card can run
        table["algo"]["data_"][1, 0] = number
        table["workspace_size"][1] = WORKSPACE_BYTES
        table["state"][1] = cublas.Status.SUCCESS
        memory_at(count, 4, np.int32)[0] = 2

    def matmul(
        self,
        handle: int,
        operation: int,
        alpha: int,
        a: int,
        a_layout: int,
        b: int,
        b_layout: int,
        beta: int,
        c: int,
        c_layout: int,
        d: int,
        d_layout: int,
        algorithm: int,
        workspace: int,
        workspace_bytes: int,
        stream: int,
    ) -> None:
        number = int(memory_at(algorithm, 64, np.uint64)[0])
        *problem, aligned = self._algorithms[number]
        assert problem == [operation, a_layout, b_layout, c_layout, d_layout], (
            "an algorithm is of its problem"
        )
        assert len({self.layouts[layout].batch for layout in problem[1:]}) == 1
        assert workspace % 256 == 0
        assert workspace_bytes >= WORKSPACE_BYTES
        if any(place % least for place, least in zip((a, b, c, d), aligned, strict=True)):
            raise cuBLASLtError(cublas.Status.INVALID_VALUE)
        does = self.operations[operation]
        self.calls.append(does)
        names = real.MatmulDescAttribute
        codes = [cublas.Operation(does.attributes.get(name, 0)) for name in (names.TRANSA, names.TRANSB)]
        epilog = EPILOGS(does.attributes.get(names.EPILOGUE, EPILOGS.DEFAULT))
        bias = does.attributes[names.BIAS_POINTER] if epilog & EPILOGS.BIAS else 0
        assert bias % 16 == 0, "cuBLASLt reads 16 bytes of a bias at once"
        scale = np.float64 if does.scale == R_64F else np.float32
        factors = [memory_at(place, np.dtype(scale).itemsize, scale)[0].copy() for place in (alpha, beta)]
        layouts = [self.layouts[layout] for layout in (a_layout, b_layout, d_layout)]
        assert c_layout == d_layout
        assert c == d
        is_tf32 = does.compute == KINDS.COMPUTE_32F_FAST_TF32

        def run() -> None:
            for i in range(layouts[2].batch):
                sides = []
                for place, layout, code in zip((a, b), layouts, codes, strict=False):
                    values = to_floats(matrix(place, layout, i), VALUES[layout.kind])
                    values = values.T if code == cublas.Operation.T else values
                    sides.append(to_tf32(values) if is_tf32 else values)
                out = matrix(d, layouts[2], i)
                total = factors[0] * (sides[0] @ sides[1])
                assert total.shape == out.shape
                if factors[1]:
                    total = total + factors[1] * to_floats(out, VALUES[layouts[2].kind])
                if bias:
                    vector = matrix(bias, Layout(layouts[2].kind, out.shape[0], 1, out.shape[0]), 0)
                    total = total + to_floats(vector, VALUES[layouts[2].kind])
                if epilog & EPILOGS.RELU:
                    total = np.maximum(total, 0)
                out[...] = from_floats(total, VALUES[layouts[2].kind])

        self._machine.queue(self._machine.streams[stream], run)


def memory_at(place: int, nbytes: int, kind: Any) -> NDArray[Any]:
    """What lies there."""
    return np.ctypeslib.as_array((ctypes.c_byte * nbytes).from_address(place)).view(kind)


def value_at(place: int, nbytes: int, kind: Any) -> int:
    """An attribute's value, whose size must be its type's."""
    assert nbytes == np.dtype(kind).itemsize, "an attribute has its type's size"
    return int(memory_at(place, nbytes, kind)[0])


def matrix(place: int, layout: Layout, number: int) -> NDArray[Any]:
    """Matrix `number`, (rows, columns), which shares its memory."""
    kind = VALUES[layout.kind].storage
    start = place + number * layout.stride * kind.itemsize
    count = layout.leading * (layout.columns - 1) + layout.rows
    flat = memory_at(start, count * kind.itemsize, kind)
    strides = (kind.itemsize, layout.leading * kind.itemsize)
    return np.lib.stride_tricks.as_strided(flat, (layout.rows, layout.columns), strides)


def to_tf32(values: NDArray[Any]) -> NDArray[Any]:
    """Rounded to 10 bits behind the point."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0xFFF + (bits >> 13 & 1)) & 0xFFFFE000).astype(np.uint32).view(np.float32)
