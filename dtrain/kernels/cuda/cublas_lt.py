"""Matrix products by cuBLASLt, through nvmath-python's bindings, which are imported when products are made.

Unlike cuBLAS through CuPy, which sets its handle's stream at every call, a call of cuBLASLt names its stream
and its workspace, so that a CUDA graph can hold it. Only the choice of an algorithm cannot be captured: from
CUDA 13.3 on `cublasLtMatmulAlgoGetHeuristic` fails while the stream is. It is made once for each product.

cuBLASLt is column-major: it sees the transposes, so C' = op(B)' op(A)' gives C row-major. Its bias runs along
the rows of its D, which is along the columns of ours.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import BackendError
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.form import ValueType
from dtrain.kernels.cuda.products import Products, types_of

HOPPER: Final = 90
HOPPER_WORKSPACE_BYTES: Final = 32 << 20  # what NVIDIA recommends; other cards need 4 MiB
WORKSPACE_BYTES: Final = 4 << 20
MOST_ALIGNMENT_BYTES: Final = 256  # cuBLASLt's default for all matrices
# No preference tells cuBLASLt how the bias is aligned: it picks algorithms that read 16 bytes at once, and
# those fault (pytorch/pytorch#194497).
BIAS_ALIGNMENT_BYTES: Final = 16
CANDIDATES: Final = 4
SUCCESS: Final = 0

Alignments = tuple[int, int, int]  # of A, B and C, in bytes
Kind = tuple[Product, ValueType, ValueType, bool, bool]  # the types; whether there is a bias, and an epilog


@final
@dataclass(frozen=True)
class Plan:
    """How one product is computed: descriptors, and the algorithm that the heuristic chose."""

    operation: int
    a: int
    b: int
    c: int
    algorithm: NDArray[Any]
    alpha: NDArray[Any]
    beta: NDArray[Any]
    does_epilog: bool


@final
class CublasLt(Products):
    """`stream` is CuPy's; `room` gives bytes of device memory, for a workspace that all products share."""

    def __init__(self, stream: Any, compute_capability: int, room: Callable[[int], Buffer]) -> None:
        self._lt: Any = importlib.import_module("nvmath.bindings.cublasLt")
        self._blas: Any = importlib.import_module("nvmath.bindings.cublas")
        types = importlib.import_module("nvmath").CudaDataType
        self._types: dict[ValueType, int] = {
            ValueType.FLOAT64: types.CUDA_R_64F,
            ValueType.FLOAT32: types.CUDA_R_32F,
            ValueType.FLOAT16: types.CUDA_R_16F,
            ValueType.BFLOAT16: types.CUDA_R_16BF,
        }
        self._stream = stream
        self._handle = self._lt.create()
        self._workspace = room(HOPPER_WORKSPACE_BYTES if compute_capability >= HOPPER else WORKSPACE_BYTES)
        self._plans: dict[Kind, dict[Alignments, Plan]] = {}
        self._name = f"cuBLASLt {version_text(self._lt)}"

    @property
    def name(self) -> str:
        return self._name

    def multiply(
        self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None, *, captured: bool
    ) -> bool:
        lt = self._lt
        inputs, output = types_of(product, c)
        has_epilog = product.relu or bias is not None
        # Of a D of one row or column cuBLASLt has left out the bias (github.com/dfyz/cublaslt-bias-epilogue).
        fits = min(product.m, product.n) > 1
        if bias is not None:
            fits = fits and alignment(bias.data.ptr) >= BIAS_ALIGNMENT_BYTES
        kind = (product, inputs, output, bias is not None, has_epilog and fits)
        pointers = (a.data.ptr, b.data.ptr, c.data.ptr)
        plan = self._plan(
            kind, (alignment(pointers[0]), alignment(pointers[1]), alignment(pointers[2])), captured
        )
        if plan.does_epilog and bias is not None:
            self._describe(plan.operation, lt.MatmulDescAttribute.BIAS_POINTER, bias.data.ptr)
        try:
            lt.matmul(
                self._handle,
                plan.operation,
                plan.alpha.ctypes.data,
                pointers[1],
                plan.b,
                pointers[0],
                plan.a,
                plan.beta.ctypes.data,
                pointers[2],
                plan.c,
                pointers[2],
                plan.c,
                plan.algorithm.ctypes.data,
                self._workspace.data.ptr,
                self._workspace.nbytes,
                self._stream.ptr,
            )
        except lt.cuBLASLtError as error:
            raise BackendError(f"{self._name}: {told(product)} must run, got {error}") from error
        return plan.does_epilog or not has_epilog

    # -- plans

    def _plan(self, kind: Kind, given: Alignments, captured: bool) -> Plan:
        plans = self._plans.setdefault(kind, {})
        found = plans.get(given)
        if found is None and captured:
            weaker = (p for own, p in plans.items() if all(x <= y for x, y in zip(own, given, strict=True)))
            found = next(weaker, None)
            if found is None:
                raise BackendError(
                    f"CUDA graph: {told(kind[0])} must have been computed once before it is captured, got "
                    f"none of its types and alignments"
                )
        if found is None:
            found = plans[given] = self._make(kind, given)
        return found

    def _make(self, kind: Kind, given: Alignments) -> Plan:
        product, inputs, output, has_bias, does_epilog = kind
        if does_epilog:
            plan = self._try(product, inputs, output, given, has_bias, does_epilog=True)
            if plan is not None:
                return plan
        plan = self._try(product, inputs, output, given, has_bias, does_epilog=False)
        if plan is None:
            raise BackendError(
                f"{self._name}: {told(product)} of {inputs.name} into {output.name} must have an algorithm, "
                f"got none; CUBLASLT_LOG_LEVEL=5 shows why"
            )
        return plan

    def _try(
        self,
        product: Product,
        inputs: ValueType,
        output: ValueType,
        given: Alignments,
        has_bias: bool,
        *,
        does_epilog: bool,
    ) -> Plan | None:
        """A plan, or None where cuBLASLt has no algorithm."""
        p, lt = product, self._lt
        scale = np.float64 if output is ValueType.FLOAT64 else np.float32
        scale_type = self._types[ValueType.FLOAT64 if output is ValueType.FLOAT64 else ValueType.FLOAT32]
        operation = lt.matmul_desc_create(int(self._compute_type(p, inputs)), int(scale_type))
        attributes, codes = lt.MatmulDescAttribute, self._blas.Operation
        self._describe(operation, attributes.TRANSA, codes.T if p.transpose_b else codes.N)
        self._describe(operation, attributes.TRANSB, codes.T if p.transpose_a else codes.N)
        if does_epilog:
            epilogs = lt.Epilogue
            chosen = (epilogs.RELU_BIAS if p.relu else epilogs.BIAS) if has_bias else epilogs.RELU
            self._describe(operation, attributes.EPILOGUE, chosen)
            if has_bias:  # any address: each call sets its own
                self._describe(operation, attributes.BIAS_POINTER, self._workspace.data.ptr)
        a_shape = (p.k, p.m) if p.transpose_a else (p.m, p.k)
        b_shape = (p.n, p.k) if p.transpose_b else (p.k, p.n)
        a = self._layout(inputs, a_shape, p.batch, p.stride_a)
        b = self._layout(inputs, b_shape, p.batch, p.stride_b)
        c = self._layout(output, (p.m, p.n), p.batch, p.stride_c)
        algorithm = self._choose((operation, b, a, c, c), given, output)
        if algorithm is None:
            for layout in (a, b, c):
                lt.matrix_layout_destroy(layout)
            lt.matmul_desc_destroy(operation)
            return None
        alpha, beta = np.array(p.alpha, scale), np.array(p.beta, scale)
        return Plan(operation, a, b, c, algorithm, alpha, beta, does_epilog)

    def _compute_type(self, product: Product, inputs: ValueType) -> Any:
        kinds = self._blas.ComputeType
        if inputs is ValueType.FLOAT64:
            return kinds.COMPUTE_64F
        if inputs is ValueType.FLOAT32 and product.tf32:
            return kinds.COMPUTE_32F_FAST_TF32
        return kinds.COMPUTE_32F

    def _layout(self, kind: ValueType, shape: tuple[int, int], batch: int, stride: int) -> int:
        """Of a row-major matrix, which is its transpose column-major."""
        rows, columns = shape
        lt = self._lt
        layout: int = lt.matrix_layout_create(int(self._types[kind]), columns, rows, columns)
        if batch > 1:
            attributes = lt.MatrixLayoutAttribute
            for attribute, value in (
                (attributes.BATCH_COUNT, batch),
                (attributes.STRIDED_BATCH_OFFSET, stride),
            ):
                data = np.array(value, lt.get_matrix_layout_attribute_dtype(attribute))
                lt.matrix_layout_set_attribute(layout, int(attribute), data.ctypes.data, data.nbytes)
        return layout

    def _describe(self, operation: int, attribute: Any, value: int) -> None:
        data = np.array(value, self._lt.get_matmul_desc_attribute_dtype(attribute))
        self._lt.matmul_desc_set_attribute(operation, int(attribute), data.ctypes.data, data.nbytes)

    def _choose(
        self, problem: tuple[int, int, int, int, int], given: Alignments, output: ValueType
    ) -> NDArray[Any] | None:
        """The heuristic's first algorithm; None where there is none."""
        lt = self._lt
        attributes = lt.MatmulPreferenceAttribute
        wanted = {
            attributes.MAX_WORKSPACE_BYTES: self._workspace.nbytes,
            attributes.MIN_ALIGNMENT_A_BYTES: given[1],
            attributes.MIN_ALIGNMENT_B_BYTES: given[0],
            attributes.MIN_ALIGNMENT_C_BYTES: given[2],
            attributes.MIN_ALIGNMENT_D_BYTES: given[2],
        }
        if output.is_16_bit:  # parts of a sum that is split are added up in float32, not in C's type
            wanted[attributes.REDUCTION_SCHEME_MASK] = lt.ReductionScheme.COMPUTE_TYPE
        preference = lt.matmul_preference_create()
        results = np.zeros(CANDIDATES, lt.matmul_heuristic_result_dtype)
        count = np.zeros(1, np.int32)
        try:
            for attribute, value in wanted.items():
                data = np.array(value, lt.get_matmul_preference_attribute_dtype(attribute))
                lt.matmul_preference_set_attribute(preference, int(attribute), data.ctypes.data, data.nbytes)
            lt.matmul_algo_get_heuristic(
                self._handle, *problem, preference, CANDIDATES, results.ctypes.data, count.ctypes.data
            )
        except lt.cuBLASLtError:  # of a type or an epilog that it does not have
            return None
        finally:
            lt.matmul_preference_destroy(preference)
        usable = [i for i in range(int(count[0])) if results["state"][i] == SUCCESS]
        return results[usable[0] : usable[0] + 1].copy() if usable else None


def version_text(library: Any) -> str:
    """130500 is 13.5.0."""
    code = int(library.get_version())
    return f"{code // 10000}.{code // 100 % 100}.{code % 100}"


def alignment(address: int) -> int:
    """Of an address, in bytes."""
    return min(address & -address, MOST_ALIGNMENT_BYTES)


def told(product: Product) -> str:
    """For messages."""
    p = product
    batch = f"{p.batch} products" if p.batch > 1 else "a product"
    return f"{batch} ({p.m}, {p.k}) x ({p.k}, {p.n})"
