"""The device on a card: products in every type, the order of copies, captures, and what it says when full."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.device import Product
from dtrain.kernels.cuda.form import ValueType
from tests.kernels.cuda.test_cublas_lt import BF16, F32, FLAGS, TYPES, compared, fetched, on

pytestmark = pytest.mark.gpu

MANY = 1 << 24
SHAPES = [(3, 5, 7), (1, 64, 32), (64, 1, 32), (128, 96, 64), (33, 65, 129)]


def test_a_card_is_usable(backend: CudaBackend) -> None:
    assert backend.describe().startswith("GPU 0")


@pytest.mark.parametrize("transposes", FLAGS, ids=lambda flags: "".join("NT"[flag] for flag in flags))
@pytest.mark.parametrize("types", TYPES, ids=lambda types: f"{types[0].name}-{types[1].name}")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_gives_what_its_definition_says(
    device: CupyDevice,
    shape: tuple[int, int, int],
    types: tuple[ValueType, ValueType],
    transposes: tuple[bool, bool],
) -> None:
    m, n, k = shape
    scale = 1 / np.sqrt(k)
    for batch, beta, has_bias, relu in itertools.product((1, 3), (0.0, 1.0), (False, True), (False, True)):
        strides = (m * k, k * n, m * n) if batch > 1 else (0, 0, 0)
        product = Product(*shape, *transposes, scale, beta, batch, *strides, *types, relu=relu)
        compared(device, product, has_bias=has_bias)
        compared(device, product, has_bias=has_bias, offset=1)


def test_float32_is_not_rounded_to_tf32_unless_it_may_be(device: CupyDevice) -> None:
    third = on(device, np.full(128 * 128, 1 / 3), F32)
    ends = []
    for tf32 in (False, True):
        c = device.empty(128 * 128, np.float32)
        device.gemm(Product(128, 128, 128, tf32=tf32), third, third, c)
        ends.append(float(fetched(device, c, F32)[0]))
    assert abs(ends[0] * 9 / 128 - 1) < 1e-5
    assert 3e-5 < abs(ends[1] * 9 / 128 - 1) < 1e-3


def test_the_description_names_cublaslt(device: CupyDevice) -> None:
    assert not device.no_capture, "pip install nvmath-python for products of 16 bits and graphs"
    assert "cuBLASLt" in device.describe()


def test_copies_beside_keep_the_order_that_marks_give(device: CupyDevice) -> None:
    room, kept = device.empty(MANY, np.float32), device.empty(MANY, np.float32)
    source, target = device.host(MANY, np.float32), device.host(MANY, np.float32)
    for value in range(6):
        source[...] = value
        copied = device.copy_in(source, room, device.mark())
        device.after(copied)
        device.copy(room, kept)
        out = device.copy_out(kept, target)
        device.after(out)
        device.clear(kept)
        out.wait()
        assert target.min() == target.max() == value


def test_a_graph_replays_products_of_every_type(device: CupyDevice) -> None:
    for inputs, output in TYPES:
        product = Product(32, 48, 64, inputs=inputs, output=output, relu=True)
        rng = np.random.default_rng(5)
        a, b = (on(device, rng.standard_normal(size), inputs) for size in (32 * 64, 64 * 48))
        bias = on(device, rng.standard_normal(48), output)
        eager, replayed = (device.empty(32 * 48, output.storage) for _ in range(2))
        device.gemm(product, a, b, replayed, bias)
        device.begin_capture()
        device.gemm(product, a, b, replayed, bias)
        replay = device.end_capture()
        for _ in range(2):
            fresh = on(device, rng.standard_normal(32 * 64), inputs)
            device.copy(fresh, a)
            device.clear(replayed)
            replay.launch()
            device.gemm(product, a, b, eager, bias)
            np.testing.assert_array_equal(fetched(device, replayed, output), fetched(device, eager, output))


def test_a_product_that_no_run_has_planned_is_refused_in_a_capture(device: CupyDevice) -> None:
    a, c = on(device, np.ones(17 * 17), BF16), device.empty(17 * 17, np.uint16)
    product = Product(17, 17, 17, inputs=BF16, output=BF16)
    device.begin_capture()
    with pytest.raises(BackendError, match="must have been computed once"):
        device.gemm(product, a, a, c)
    device.abandon_capture()
    device.gemm(product, a, a, c)
    assert (fetched(device, c, BF16) == 17).all()


def test_the_device_is_usable_behind_a_broken_capture(device: CupyDevice) -> None:
    import cupy

    x = on(device, [1, 2], F32)
    device.begin_capture()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError):
        cupy.cuda.runtime.streamSynchronize(device.stream_pointer)
    device.abandon_capture()
    assert fetched(device, x, F32).tolist() == [1, 2]
    device.begin_capture()
    device.clear(x)
    device.end_capture().launch()
    assert fetched(device, x, F32).tolist() == [0, 0]


def test_a_stream_that_leaves_a_capture_and_does_not_come_back_is_told(device: CupyDevice) -> None:
    import cupy

    x = on(device, [1, 2], F32)
    side, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event(disable_timing=True)
    device.begin_capture()
    device.clear(x)
    cupy.cuda.get_current_stream().record(event)
    side.wait_event(event)
    x.data.memset_async(1, 4, side)
    with pytest.raises(
        BackendError, match="a capture's end must succeed, got cudaErrorStreamCaptureUnjoined"
    ):
        device.end_capture()
    assert fetched(device, x, F32).tolist() == [1, 2]


def test_a_card_that_is_full_is_told_and_stays_usable(device: CupyDevice) -> None:
    with pytest.raises(BackendError, match=r"the card must give 4096\.00 GiB more, got .* GiB free"):
        device.empty(1 << 40, np.float32)
    before = device.memory_used()
    buffer = device.empty(1 << 20, np.float32)
    assert device.memory_used() == before + buffer.nbytes <= device.memory_most()
    assert device.memory_free() > 0
