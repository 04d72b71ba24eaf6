"""Matrix products by cuBLAS through CuPy: float32 and float64, never in a CUDA graph."""

from __future__ import annotations

import importlib
from typing import Any, Final, final

import numpy as np

from dtrain.errors import BackendError
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.form import ValueType
from dtrain.kernels.cuda.products import Products, types_of

DEFAULT_MATH: Final = 0  # cublasMath_t
TF32_MATH: Final = 3


@final
class CupyBlas(Products):
    """For machines without nvmath-python; `reason` is why.

    CuPy sets its handle's stream, the thread's current one, at every call, and refuses while that is captured
    (cupy/cupy#6290).
    """

    def __init__(self, cupy: Any, reason: str) -> None:
        try:
            cublas: Any = importlib.import_module("cupy_backends.cuda.libs.cublas")
        except ImportError as error:
            raise BackendError(
                f"GPU: cuBLAS must be installed, got {error}; pip install 'dtrain[cuda12]', or "
                f"'dtrain[cuda13]' for a driver of CUDA 13"
            ) from None
        self._handle = cupy.cuda.device.get_cublas_handle
        self._set_math_mode = cublas.setMathMode
        self._products = {
            ValueType.FLOAT32: cublas.sgemmStridedBatched,
            ValueType.FLOAT64: cublas.dgemmStridedBatched,
        }
        self._error = cublas.CUBLASError
        self._reason = reason
        self._math_mode = DEFAULT_MATH

    @property
    def name(self) -> str:
        return f"cuBLAS, for float32 and without CUDA graphs, since {self._reason}"

    @property
    def no_capture(self) -> str:
        return f"products are computed by cuBLAS, since {self._reason}"

    def multiply(
        self, product: Product, a: Buffer, b: Buffer, c: Buffer, bias: Buffer | None, *, captured: bool
    ) -> bool:
        p = product
        inputs, output = types_of(p, c)
        if captured:
            raise self._missing("CUDA graph: a product that is captured")
        if inputs.is_16_bit:
            raise self._missing(f"GPU: a product of {inputs.name} values")
        handle = self._handle()
        math_mode = TF32_MATH if p.tf32 and inputs is ValueType.FLOAT32 else DEFAULT_MATH
        if math_mode != self._math_mode:
            self._set_math_mode(handle, math_mode)
            self._math_mode = math_mode
        alpha, beta = np.array(p.alpha, output.storage), np.array(p.beta, output.storage)
        # cuBLAS is column-major: it sees the transposes, so C' = op(B)' op(A)' gives C row-major.
        try:
            self._products[inputs](
                handle,
                int(p.transpose_b),
                int(p.transpose_a),
                p.n,
                p.m,
                p.k,
                alpha.ctypes.data,
                b.data.ptr,
                p.k if p.transpose_b else p.n,
                p.stride_b,
                a.data.ptr,
                p.m if p.transpose_a else p.k,
                p.stride_a,
                beta.ctypes.data,
                c.data.ptr,
                p.n,
                p.stride_c,
                p.batch,
            )
        except self._error as error:
            raise BackendError(
                f"cuBLAS: a product ({p.m}, {p.k}) x ({p.k}, {p.n}) must run, got {error}"
            ) from error
        return bias is None and not p.relu

    def _missing(self, what: str) -> BackendError:
        return BackendError(
            f"{what} must be computed by cuBLASLt, got cuBLAS, since {self._reason}; "
            f"pip install nvmath-python, or 'dtrain[cuda12]' or 'dtrain[cuda13]', which bring it"
        )
