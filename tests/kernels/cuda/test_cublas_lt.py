"""Products on a card: what is asked of cuBLASLt gives what the product's definition says."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from nvmath.bindings import cublas
from nvmath.bindings import cublasLt as bindings

from dtrain.errors import BackendError
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.form import ValueType, to_floats
from tests.kernels.cuda.cpu_device import CpuDevice, from_floats
from tests.kernels.cuda.numpy_cublas_lt import cuBLASLtError
from tests.kernels.cuda.numpy_cupy import Cupy

F64, F32, F16, BF16 = ValueType.FLOAT64, ValueType.FLOAT32, ValueType.FLOAT16, ValueType.BFLOAT16
TYPES = [(F64, F64), (F32, F32), (F16, F16), (F16, F32), (BF16, BF16), (BF16, F32)]
FLAGS = list(itertools.product([False, True], repeat=2))
# Of a sum of about ten numbers near 1, in any order: in the output's type, rounded at most twice.
RTOL = {F64: 1e-12, F32: 1e-5, F16: 2e-3, BF16: 1.6e-2}


def on(device: Any, values: Any, kind: ValueType, offset: int = 0) -> Buffer:
    """A buffer that holds these values, from an element on."""
    host = from_floats(np.asarray(values, np.float64).reshape(-1).astype(np.float32), kind)
    whole = device.empty(host.size + offset, kind.storage)
    buffer = whole[offset:]
    device.upload(np.ascontiguousarray(host), buffer)
    return buffer


def fetched(device: Any, buffer: Buffer, kind: ValueType) -> Any:
    host = device.host(buffer.size, buffer.dtype)
    device.download(buffer, host)
    return to_floats(host, kind)


def compared(device: CupyDevice, product: Product, *, has_bias: bool = False, offset: int = 0) -> None:
    """The product on the stand-in for a card gives what it gives by definition."""
    p = product
    inputs, output = p.inputs or F32, p.output or F32
    rng = np.random.default_rng(1)
    count = p.batch
    sides = [rng.standard_normal(count * size) for size in (p.m * p.k, p.k * p.n, p.m * p.n)]
    bias = rng.standard_normal(p.n)
    ends = []
    for here in (device, CpuDevice()):
        a, b = (on(here, values, inputs) for values in sides[:2])
        c = on(here, sides[2] if p.beta else np.full_like(sides[2], np.nan), output)
        here.gemm(p, a, b, c, on(here, bias, output, offset) if has_bias else None)
        ends.append(fetched(here, c, output))
    np.testing.assert_allclose(ends[0], ends[1], rtol=RTOL[output], atol=RTOL[output])
    assert np.isfinite(ends[0]).all()


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    return Cupy(capability="80").install(monkeypatch)


@pytest.fixture
def device(cupy: Cupy) -> CupyDevice:
    return CupyDevice(0)


def epilogs(cupy: Cupy) -> list[int]:
    """Of the calls so far."""
    return [call.attributes.get(bindings.MatmulDescAttribute.EPILOGUE, 1) for call in cupy.cublas_lt.calls]


@pytest.mark.parametrize("batch", [1, 3], ids=["one", "batch"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 0.5])
@pytest.mark.parametrize("transposes", FLAGS, ids=lambda flags: "".join("NT"[flag] for flag in flags))
@pytest.mark.parametrize("types", TYPES, ids=lambda types: f"{types[0].name}-{types[1].name}")
def test_a_product_is_row_major_in_every_type(
    device: CupyDevice,
    types: tuple[ValueType, ValueType],
    transposes: tuple[bool, bool],
    beta: float,
    batch: int,
) -> None:
    strides = (3 * 7, 7 * 5, 3 * 5) if batch > 1 else (0, 0, 0)
    for has_bias, relu in FLAGS:
        product = Product(3, 5, 7, *transposes, 0.5, beta, batch, *strides, *types, relu=relu)
        compared(device, product, has_bias=has_bias)


def test_one_matrix_serves_a_whole_batch(device: CupyDevice) -> None:
    compared(device, Product(3, 5, 7, batch=4, stride_b=35, stride_c=15))


@pytest.mark.parametrize(("has_bias", "relu", "epilog"), [(0, 0, 1), (1, 0, 4), (0, 1, 2), (1, 1, 6)])
def test_bias_and_relu_are_an_epilog_of_the_product(
    cupy: Cupy, device: CupyDevice, has_bias: bool, relu: bool, epilog: int
) -> None:
    compared(device, Product(3, 5, 7, relu=bool(relu)), has_bias=bool(has_bias))
    assert epilogs(cupy) == [epilog]


@pytest.mark.parametrize("types", TYPES, ids=lambda types: f"{types[0].name}-{types[1].name}")
def test_a_bias_that_is_not_aligned_is_added_by_a_kernel(
    cupy: Cupy, device: CupyDevice, types: tuple[ValueType, ValueType]
) -> None:
    product = Product(3, 5, 7, batch=2, stride_a=21, stride_b=35, stride_c=15, relu=True)
    compared(device, replace(product, inputs=types[0], output=types[1]), has_bias=True, offset=1)
    assert epilogs(cupy) == [1]


@pytest.mark.parametrize("status", [cublas.Status.INVALID_VALUE, cublas.Status.NOT_SUPPORTED])
def test_where_there_is_no_epilog_a_kernel_serves(
    cupy: Cupy, device: CupyDevice, status: cublas.Status
) -> None:
    cupy.machine.faults["heuristic"] = cuBLASLtError(status)
    compared(device, Product(3, 5, 7, relu=True), has_bias=True)
    assert epilogs(cupy) == [1]


def test_a_product_without_an_algorithm_is_told(cupy: Cupy, device: CupyDevice) -> None:
    a = on(device, np.ones(4), F32)
    cupy.machine.faults["heuristic"] = cuBLASLtError(cublas.Status.NOT_SUPPORTED)
    with pytest.raises(
        BackendError, match=r"\(2, 2\) x \(2, 2\) of FLOAT32 into FLOAT32 must have an algorithm"
    ):
        device.gemm(Product(2, 2, 2), a, a, device.empty(4, np.float32))


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)])
def test_of_a_single_row_or_column_a_kernel_adds_the_bias(
    cupy: Cupy, device: CupyDevice, shape: tuple[int, int]
) -> None:
    compared(device, Product(*shape, 7), has_bias=True)
    assert epilogs(cupy) == [1]


def test_matrices_that_do_not_follow_each_other_get_their_bias_one_by_one(device: CupyDevice) -> None:
    plain = CpuDevice()
    product = Product(2, 3, 4, batch=2, stride_a=8, stride_b=12, stride_c=10, inputs=F64, output=F64)
    ends = []
    for here in (device, plain):
        sides = [on(here, np.arange(size), F64) for size in (16, 24, 20, 3)]
        here.gemm(product, *sides)
        ends.append(fetched(here, sides[2], F64))
    np.testing.assert_array_equal(ends[0], ends[1])


def test_tf32_is_used_only_where_a_product_allows_it(cupy: Cupy, device: CupyDevice) -> None:
    third = on(device, [1 / 3] * 4, F32)
    ends = []
    for tf32 in (False, True):
        c = device.empty(4, np.float32)
        device.gemm(Product(2, 2, 2, tf32=tf32), third, third, c)
        ends.append(fetched(device, c, F32))
    kinds = [call.compute for call in cupy.cublas_lt.calls]
    assert kinds == [cublas.ComputeType.COMPUTE_32F, cublas.ComputeType.COMPUTE_32F_FAST_TF32]
    np.testing.assert_allclose(ends[0], 2 / 9, rtol=1e-7)
    assert 1e-5 < abs(ends[1][0] * 4.5 - 1) < 1e-3


def test_a_sum_of_no_terms_is_zero_or_what_was_there(device: CupyDevice) -> None:
    nothing, bias = device.empty(0, np.float32), on(device, [1, -2], F32)
    for beta, has_bias, expected in ((0.0, False, [0] * 4), (0.0, True, [1, 0] * 2), (1.0, False, [5] * 4)):
        c = on(device, [5] * 4, F32)
        product = Product(2, 2, 0, beta=beta, relu=has_bias)
        device.gemm(product, nothing, nothing, c, bias if has_bias else None)
        np.testing.assert_array_equal(fetched(device, c, F32), expected)


def test_an_algorithm_is_chosen_once_for_a_product_and_its_alignments(cupy: Cupy, device: CupyDevice) -> None:
    a, c = on(device, np.ones(64), F32), device.empty(64, np.float32)
    for _ in range(3):
        device.gemm(Product(4, 4, 4), a[:16], a[16:32], c[:16])
    assert cupy.cublas_lt.heuristics == 1
    device.gemm(Product(4, 4, 4), a[1:17], a[16:32], c[:16])
    device.gemm(Product(4, 4, 4, beta=1.0), a[:16], a[16:32], c[:16])
    assert cupy.cublas_lt.heuristics == 3


def test_every_call_adds_its_own_bias(cupy: Cupy, device: CupyDevice) -> None:
    a = on(device, np.zeros(4), F32)
    ends = []
    for value in (1, 2):
        c = device.empty(4, np.float32)
        device.gemm(Product(2, 2, 2), a, a, c, on(device, [value] * 2, F32))
        ends.append(c)
    assert [fetched(device, c, F32)[0] for c in ends] == [1, 2]
    assert cupy.cublas_lt.heuristics == 1


def test_a_captured_product_takes_the_algorithm_chosen_before(device: CupyDevice) -> None:
    a, c = on(device, np.ones(64), F32), device.empty(64, np.float32)
    product = Product(4, 4, 4)
    device.gemm(product, a[1:17], a[17:33], c[1:17])
    device.begin_capture()
    device.gemm(product, a[:16], a[16:32], c[16:32])  # better aligned: the algorithm does as well
    device.end_capture().launch()
    assert (fetched(device, c[16:32], F32) == 4).all()


def test_a_captured_product_does_not_take_an_algorithm_for_better_alignments(device: CupyDevice) -> None:
    a, c = on(device, np.ones(64), F32), device.empty(64, np.float32)
    device.gemm(Product(4, 4, 4), a[:16], a[16:32], c[:16])
    device.begin_capture()
    with pytest.raises(BackendError, match="none of its types and alignments"):
        device.gemm(Product(4, 4, 4), a[1:17], a[16:32], c[:16])
    device.abandon_capture()


def test_a_product_that_is_captured_before_it_has_run_is_told(device: CupyDevice) -> None:
    a, c = on(device, np.ones(16), F32), device.empty(16, np.float32)
    device.begin_capture()
    with pytest.raises(BackendError, match=r"a product \(4, 4\) x \(4, 4\) must have been computed once"):
        device.gemm(Product(4, 4, 4), a, a, c)
    device.abandon_capture()
    device.gemm(Product(4, 4, 4), a, a, c)
    assert (fetched(device, c, F32) == 4).all()


def test_types_that_no_library_multiplies_are_told(device: CupyDevice) -> None:
    a, c = device.empty(4, np.uint16), device.empty(4, np.uint16)
    with pytest.raises(BackendError, match=r"output must be of its inputs' type.*got FLOAT16 of BFLOAT16"):
        device.gemm(Product(2, 2, 2, inputs=BF16, output=F16), a, a, c)


@pytest.mark.parametrize(("capability", "size"), [("80", 4 << 20), ("90", 32 << 20), ("100", 32 << 20)])
def test_the_workspace_is_what_the_card_wants(
    monkeypatch: pytest.MonkeyPatch, capability: str, size: int
) -> None:
    cupy = Cupy(capability=capability).install(monkeypatch)
    device = CupyDevice(0)
    assert device.compute_capability == int(capability)
    assert cupy.pool.used_bytes() == device.memory_used() == size


# -- without nvmath-python


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    return Cupy(nvmath=ModuleNotFoundError("No module named 'nvmath'")).install(monkeypatch)


@pytest.fixture
def bare_device(bare: Cupy) -> CupyDevice:
    return CupyDevice(0)


@pytest.mark.parametrize("kind", [F32, F64])
@pytest.mark.parametrize("transposes", FLAGS, ids=lambda flags: "".join("NT"[flag] for flag in flags))
def test_cublas_multiplies_without_nvmath(
    bare: Cupy, bare_device: CupyDevice, transposes: tuple[bool, bool], kind: ValueType
) -> None:
    strides = (21, 35, 15)
    for has_bias, relu in FLAGS:
        product = Product(3, 5, 7, *transposes, 0.5, 2.0, 2, *strides, kind, kind, relu=relu)
        compared(bare_device, product, has_bias=has_bias)
    assert bare.cublas_lt.calls == []


def test_cublas_is_told_when_a_product_may_use_tf32(bare: Cupy, bare_device: CupyDevice) -> None:
    a, c = on(bare_device, np.ones(4), F32), bare_device.empty(4, np.float32)
    for tf32 in (False, True, True, False):
        bare_device.gemm(Product(2, 2, 2, tf32=tf32), a, a, c)
    assert bare.math_modes == [3, 0]


def test_without_nvmath_products_of_16_bits_are_refused(bare_device: CupyDevice) -> None:
    a = bare_device.empty(4, np.uint16)
    with pytest.raises(BackendError, match=r"FLOAT16.*No module named 'nvmath'.*pip install nvmath-python"):
        bare_device.gemm(Product(2, 2, 2, inputs=F16, output=F16), a, a, a)


def test_without_nvmath_a_capture_of_products_is_refused(bare_device: CupyDevice) -> None:
    a, c = on(bare_device, np.ones(4), F32), bare_device.empty(4, np.float32)
    assert "nvmath" in bare_device.no_capture
    bare_device.begin_capture()
    with pytest.raises(
        BackendError, match=r"captured must be computed by cuBLASLt.*pip install nvmath-python"
    ):
        bare_device.gemm(Product(2, 2, 2), a, a, c)
    bare_device.abandon_capture()


def test_without_any_cublas_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = Cupy(nvmath=ModuleNotFoundError("No module named 'nvmath'"), cublas=ImportError("libcublas.so.13"))
    cupy.install(monkeypatch)
    with pytest.raises(
        BackendError, match=r"cuBLAS must be installed, got libcublas\.so\.13; pip install 'dtrain"
    ):
        CupyDevice(0)


def test_a_cublaslt_that_cannot_be_loaded_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy = Cupy(nvmath=RuntimeError("Failed to find cublasLt")).install(monkeypatch)
    told = CupyDevice(0).describe()
    assert "cuBLAS, for float32 and without CUDA graphs, since" in told
    assert "Failed to find cublasLt" in told
    assert cupy.pool.used_bytes() == 0, "the workspace is given back"
