"""Arrays in their forms: what conversions give, when they happen, and that none happens in vain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import CudaArray, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType, to_floats
from dtrain.kernels.cuda.launch import Kernels
from dtrain.kernels.window import PoolingWindow
from tests.kernels.cuda.cpu_device import CpuDevice

BF16 = Form(ValueType.BFLOAT16)
BF16_LAST = Form(ValueType.BFLOAT16, True)
FP16 = Form(ValueType.FLOAT16)
FP32 = Form(ValueType.FLOAT32)
FP32_LAST = Form(ValueType.FLOAT32, True)


@pytest.fixture(params=[False, True], ids=["ascending", "descending"])
def backend(request: pytest.FixtureRequest) -> CudaBackend:
    return CudaBackend(CpuDevice(descending=request.param))


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels of forms.cu, in the order of their launches."""
    names: list[str] = []
    launch = Kernels.launch

    def watched(self: Kernels, name: str, *args: Any, **settings: Any) -> None:
        if self._file == "forms.cu":
            names.append(name)
        launch(self, name, *args, **settings)

    monkeypatch.setattr(Kernels, "launch", watched)
    return names


def counting(backend: CudaBackend, *shape: int) -> CudaArray:
    """0, 1, 2, ... in Caffe's order; 16 bits hold them up to 256."""
    array = backend.array(shape)
    array.plain_overwrite()[...] = np.arange(array.size).reshape(shape)
    return array


def values(buffer: Any, form: Form) -> NDArray[Any]:
    return to_floats(np.asarray(buffer), form.type)


# -- rounding


def halves() -> NDArray[np.uint16]:
    return np.arange(65536).astype(np.uint16)


def awkward() -> NDArray[np.float32]:
    """Every number of 16 bits of both types, what lies halfway to the next, and the floats beside that."""
    with np.errstate(invalid="ignore"):
        exact = np.concatenate([to_floats(halves(), kind) for kind in (FP16.type, BF16.type)])
    subnormal = np.arange(4096, dtype=np.float32) * np.float32(2.0**-27)  # of a half, and between those
    bits = np.concatenate([exact, subnormal]).view(np.uint32)
    halfway = (half + step for half in (0x8000, 0x1000) for step in (-1, 0, 1))
    return np.unique(np.concatenate([bits, *(exact.view(np.uint32) + step for step in halfway)])).view(
        np.float32
    )


def nearest_bfloat16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """From the definition: the nearer of the two neighbours, the even one of equally near ones."""
    below = (x.view(np.uint32) >> 16).astype(np.uint16)
    above = (below + 1).astype(np.uint16)
    with np.errstate(over="ignore", invalid="ignore"):
        exact = x.astype(np.float64)
        low, high = (to_floats(side, BF16.type).astype(np.float64) for side in (below, above))
        high = np.where(np.isinf(high) & np.isfinite(low), np.sign(low) * 2.0**128, high)
        left, right = np.abs(exact - low), np.abs(high - exact)
    up = (right < left) | ((right == left) & (below % 2 == 1))
    return np.where(np.isnan(x), 0x7FC0, np.where(np.isfinite(x) & up, above, below))


def same_numbers(got: NDArray[np.uint16], expected: NDArray[np.uint16], kind: ValueType) -> None:
    with np.errstate(invalid="ignore"):
        a, b = to_floats(got, kind), to_floats(expected, kind)
    np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
    np.testing.assert_array_equal(got[~np.isnan(a)], expected[~np.isnan(b)])


@pytest.mark.parametrize("form", [BF16, FP16])
def test_sixteen_bits_round_to_the_nearest_and_ties_to_even(backend: CudaBackend, form: Form) -> None:
    given = awkward()
    array = backend.array(given.shape)
    array.plain_overwrite()[...] = given
    got = np.asarray(array.native(form))
    if form is BF16:
        same_numbers(got, nearest_bfloat16(given), form.type)
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            same_numbers(got, given.astype(np.float16).view(np.uint16), form.type)


@pytest.mark.parametrize("form", [BF16, FP16])
def test_sixteen_bits_are_read_as_they_are(backend: CudaBackend, form: Form) -> None:
    array = backend.array((65536,))
    array.native_overwrite(form)[...] = halves()
    array.written(form)
    got = array.plain()
    expected = (
        halves().view(np.float16).astype(np.float32) if form is FP16 else to_floats(halves(), form.type)
    )
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(expected))


def check_cast(backend: CudaBackend, kind: ValueType) -> None:
    """To 16 bits and back, multiplied on both ways; between packs too."""
    given = backend.constants(np.arange(-50.0, 51.0))
    narrow, wide = backend.empty(101, np.uint16), backend.empty(101)
    backend.card.cast(given, narrow, kind, 0.5)
    np.testing.assert_array_equal(to_floats(np.asarray(narrow), kind), np.arange(-50, 51) / 2)
    backend.card.cast(narrow[3:], wide[3:], kind, 4.0)
    np.testing.assert_array_equal(np.asarray(wide)[3:], 2 * np.arange(-47, 51))


@pytest.mark.parametrize("kind", [BF16.type, FP16.type])
def test_a_cast_scales_on_the_way(backend: CudaBackend, kind: ValueType) -> None:
    check_cast(backend, kind)


# -- orders


@pytest.mark.parametrize("form", [BF16_LAST, FP32_LAST, Form(ValueType.FLOAT16, True)])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 70, 1, 2), (2, 33, 8, 9), (3, 2, 65, 1), (2, 40, 2, 3)])
def test_channels_go_last_and_come_back(backend: CudaBackend, form: Form, shape: tuple[int, ...]) -> None:
    array = backend.array(shape)
    array.plain_overwrite()[...] = np.arange(array.size).reshape(shape) % 251
    expected = array.plain().transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(values(array.native(form), form), expected.reshape(-1))
    other = backend.array(shape)
    other.native_overwrite(form)[...] = array.native(form)
    other.written(form)
    np.testing.assert_array_equal(other.plain(), array.plain())


def test_double_precision_has_its_channels_last_too() -> None:
    backend = CudaBackend(CpuDevice(), dtype=np.float64)
    array = counting(backend, 2, 3, 4, 5)
    form = Form(ValueType.FLOAT64, True)
    np.testing.assert_array_equal(array.native(form), array.plain().transpose(0, 2, 3, 1).reshape(-1))


@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 3, 4), (4, 1, 3, 5), (4, 5, 1, 1), (1, 2, 3, 4, 5)])
def test_where_both_orders_are_one_there_is_one_form(backend: CudaBackend, shape: tuple[int, ...]) -> None:
    array = counting(backend, *shape)
    assert array.offer(BF16_LAST) == BF16
    np.testing.assert_array_equal(values(array.native(BF16_LAST), BF16), np.arange(array.size))


# -- when


def test_a_form_is_made_once_and_again_after_a_write(backend: CudaBackend, conversions: list[str]) -> None:
    array = counting(backend, 2, 3, 4, 5)
    for _ in range(2):
        array.native(BF16_LAST)
    assert conversions == ["channels_to_last"]
    array.plain_mutable()[0, 0, 0, 0] = 7
    assert values(array.native(BF16_LAST), BF16)[0] == 7
    assert conversions == ["channels_to_last"] * 2
    array.native(FP32)
    assert conversions == ["channels_to_last"] * 2


def test_one_form_becomes_another_by_way_of_the_base(backend: CudaBackend, conversions: list[str]) -> None:
    array = backend.array((2, 3, 4, 5))
    array.native_overwrite(BF16_LAST)[...] = 0x3F80
    array.written(BF16_LAST)
    assert array.held == BF16_LAST
    assert (values(array.native(FP16), FP16) == 1).all()
    assert conversions == ["channels_from_last", "narrow"]
    assert array.held == BF16_LAST


def check_orders(backend: CudaBackend, kind: ValueType) -> None:
    """Values of one type go from one order to the other and back as they are."""
    array, bits = backend.array((2, 3, 4, 5)), np.arange(120, dtype=np.uint16)
    first, last = Form(kind), Form(kind, channels_last=True)
    array.native_overwrite(first)[...] = bits
    array.written(first)
    turned = array.native(last).copy()
    np.testing.assert_array_equal(turned.reshape(2, 4, 5, 3), bits.reshape(2, 3, 4, 5).transpose(0, 2, 3, 1))
    array.native_overwrite(last)[...] = turned
    array.written(last)
    np.testing.assert_array_equal(array.native(first), bits)


@pytest.mark.parametrize("kind", [ValueType.FLOAT16, ValueType.BFLOAT16])
def test_sixteen_bits_change_their_order_alone(
    backend: CudaBackend, kind: ValueType, conversions: list[str]
) -> None:
    check_orders(backend, kind)
    assert conversions == ["values_to_last", "values_from_last"]


def test_a_clear_array_is_zero_in_every_form(backend: CudaBackend, conversions: list[str]) -> None:
    array = counting(backend, 2, 3, 4, 5)
    array.native(BF16_LAST)
    array.clear()
    conversions.clear()
    assert (values(array.native(BF16_LAST), BF16) == 0).all()
    assert conversions == []
    assert (values(array.native(FP16), FP16) == 0).all()
    assert array.held == FP32


def test_another_number_of_elements_forgets_what_was_offered(backend: CudaBackend) -> None:
    array = counting(backend, 2, 3, 4, 5)
    array.offer(BF16_LAST)
    array.native(BF16_LAST)
    array.reshape((2, 3, 4, 6))
    assert array.form == FP32
    assert array.is_clear
    assert array.native(BF16_LAST).size == array.size


def test_weights_are_converted_once_for_each_update(backend: CudaBackend, conversions: list[str]) -> None:
    flat = backend.flat(120)
    weights = counting(backend, 2, 3, 4, 5)
    weights.bind(flat)
    assert weights.offer(BF16_LAST) == FP32
    for _ in range(2):
        for form in (BF16_LAST, FP16):
            weights.native(form)
    assert conversions == ["channels_to_last", "narrow"]
    flat[0] = 9
    weights.push()
    assert values(weights.native(BF16_LAST), BF16)[0] == 9
    assert values(weights.native(FP16), FP16)[0] == 9
    assert conversions == ["channels_to_last", "narrow"] * 2


# -- views


def test_a_flat_view_of_images_is_in_caffes_order(backend: CudaBackend) -> None:
    array = backend.array((2, 3, 4, 5))
    view = array.view((2, 60))
    array.native_overwrite(BF16_LAST)[...] = counting(backend, 2, 3, 4, 5).native(BF16_LAST)
    array.written(BF16_LAST)
    assert view.form == FP32
    np.testing.assert_array_equal(view.plain(), np.arange(120).reshape(2, 60))
    np.testing.assert_array_equal(values(view.native(BF16_LAST), BF16), np.arange(120))
    view.native_overwrite(BF16)[...] = 0x4000
    view.written(BF16)
    assert (array.plain() == 2).all()
    assert (values(array.native(BF16_LAST), BF16) == 2).all()


def test_a_view_as_other_images_has_its_own_channels(backend: CudaBackend) -> None:
    array = counting(backend, 2, 6, 2, 3)
    view = array.view((2, 3, 4, 3))
    for shown in (array, view, array):
        expected = np.arange(72).reshape(shown.shape).transpose(0, 2, 3, 1).reshape(-1)
        np.testing.assert_array_equal(values(shown.native(BF16_LAST), BF16), expected)
    view.native_overwrite(BF16_LAST)[...] = counting(backend, 2, 3, 4, 3).native(BF16_LAST)
    view.written(BF16_LAST)
    expected = np.arange(72).reshape(array.shape).transpose(0, 2, 3, 1).reshape(-1)
    np.testing.assert_array_equal(values(array.native(BF16_LAST), BF16), expected)


def test_images_that_are_reshaped_keep_their_values(backend: CudaBackend) -> None:
    array = backend.array((2, 6, 2, 3))
    array.native_overwrite(FP32_LAST)[...] = counting(backend, 2, 6, 2, 3).native(FP32_LAST)
    array.written(FP32_LAST)
    array.reshape((2, 3, 4, 3))
    np.testing.assert_array_equal(
        array.native(FP32_LAST), np.arange(72).reshape(2, 3, 4, 3).transpose(0, 2, 3, 1).reshape(-1)
    )
    np.testing.assert_array_equal(array.plain().reshape(-1), np.arange(72))


# -- along a net


def images(backend: CudaBackend, *shape: int, form: Form | None = None) -> CudaArray:
    array = backend.array(shape)
    if form is not None:
        array.offer(form)
    array.plain_overwrite()[...] = np.random.default_rng(3).standard_normal(shape)
    return array


@pytest.mark.parametrize("form", [BF16_LAST, FP32_LAST])
def test_a_chain_is_converted_where_it_begins_and_where_it_is_flat(
    form: Form, conversions: list[str]
) -> None:
    precision = "bf16" if form.type.is_16_bit else "fp32"
    backend = CudaBackend(CpuDevice(), precision=precision)
    ops: Any = backend.operators("DEFAULT")
    window = PoolingWindow(method="MAX", kernel=(3, 3), stride=(2, 2), pad=(0, 0))
    x, pooled, normal = (
        images(backend, 2, 8, 9, 9, form=form),
        backend.array((2, 8, 4, 4)),
        backend.array((2, 8, 4, 4)),
    )
    scores, weights, bias = backend.array((2, 5)), images(backend, 5, 128), images(backend, 5)
    pool = ops.Pooling(window, True, x, pooled, None)
    relu = ops.ReLU(0.0, pooled, pooled)
    lrn = ops.LRN("ACROSS_CHANNELS", 5, 1e-2, 0.75, 1.0, pooled, normal)
    flat = normal.view((2, 128))
    product = ops.InnerProduct(flat, weights, bias, scores)
    assert (pooled.form, normal.form, scores.form) == (form, form, form.of(scores.shape))

    def forward() -> None:
        pool.forward(x, pooled, None)
        relu.forward(pooled, pooled)
        lrn.forward(pooled, normal)
        product.forward(flat, weights, bias, scores)

    forward()
    flattened = ["values_from_last" if form.type.is_16_bit else "channels_from_last"]
    of_params = ["narrow", "narrow"] if form.type.is_16_bit else []
    assert conversions == ["channels_to_last", *flattened, *of_params]
    conversions.clear()
    forward()
    assert conversions == flattened
    conversions.clear()

    scores_diff, weights_diff, bias_diff = images(backend, 2, 5), backend.array((5, 128)), backend.array((5,))
    normal_diff, pooled_diff, x_diff = (backend.array(a.shape) for a in (normal, pooled, x))
    scores_diff.native(form)
    conversions.clear()
    product.backward(scores_diff, flat, weights, normal_diff.view((2, 128)), weights_diff, bias_diff)
    lrn.backward(normal_diff, pooled, normal, pooled_diff)
    relu.backward(pooled_diff, pooled, pooled_diff)
    pool.backward(pooled_diff, x_diff)
    assert conversions == ["values_to_last" if form.type.is_16_bit else "channels_to_last"]
    assert x_diff.held == form


def test_diffs_that_meet_in_a_split_keep_their_form(conversions: list[str]) -> None:
    backend = CudaBackend(CpuDevice(), precision="bf16")
    ops: Any = backend.operators("DEFAULT")
    x, dx = images(backend, 2, 8, 3, 5, form=BF16_LAST), backend.array((2, 8, 3, 5))
    diffs = [backend.array(x.shape) for _ in range(5)]
    add_up = ops.Sum([1.0] * 5, diffs, dx)  # built before anyone has written a diff
    tops = [backend.array(x.shape) for _ in diffs]
    consumers = [ops.Sigmoid(x, top) for top in tops]
    slopes = [images(backend, *x.shape) for _ in diffs]
    for operator, top, slope, diff in zip(consumers, tops, slopes, diffs, strict=True):
        operator.forward(x, top)
        slope.native(BF16_LAST)
        operator.backward(slope, x, top, diff)
    conversions.clear()
    add_up.forward(diffs, dx)
    assert dx.held == BF16_LAST
    assert conversions == []
    expected = sum(diff.plain() for diff in diffs)
    np.testing.assert_allclose(dx.plain(), expected, 2**-6, 2**-6)


def test_arrays_of_several_forms_meet_in_the_best(conversions: list[str]) -> None:
    backend = CudaBackend(CpuDevice())
    ops: Any = backend.operators("DEFAULT")
    forms = (FP32, BF16, BF16_LAST)
    xs = [images(backend, 2, 4, 3, 5, form=form) for form in forms]
    for x, form in zip(xs, forms, strict=True):
        x.native(form)
    for name, args, shape in (
        ("Sum", ([1.0] * 3,), (2, 4, 3, 5)),
        ("Maximum", (), (2, 4, 3, 5)),
        ("Product", (True,), (2, 4, 3, 5)),
        ("Concat", (1,), (2, 12, 3, 5)),
    ):
        y = backend.array(shape)
        getattr(ops, name)(*args, xs, y).forward(xs, y)
        assert (y.form, y.held) == (BF16_LAST, BF16_LAST), name


def test_labels_stay_as_they_are() -> None:
    backend = CudaBackend(CpuDevice(), precision="bf16")
    backend.card.channels_last = True
    ops: Any = backend.operators("DEFAULT")
    a, b, y = counting(backend, 300), counting(backend, 300), backend.array((600,))
    ops.Concat(0, [a, b], y).forward([a, b], y)
    assert y.form == FP32
    assert y.plain()[599] == 299


@pytest.mark.parametrize("offered", [FP32, BF16, FP16])
@pytest.mark.parametrize(("precision", "made"), [("fp32", FP32), ("bf16", BF16), ("fp16", FP16)])
def test_a_layers_own_precision_is_that_of_its_product(precision: str, made: Form, offered: Form) -> None:
    backend = CudaBackend(CpuDevice(), precision=precision)
    ops: Any = backend.operators("DEFAULT")
    x, w, y = images(backend, 3, 8, form=offered), images(backend, 5, 8), backend.array((3, 5))
    dx, dw, dy = backend.array((3, 8)), backend.array((5, 8)), images(backend, 3, 5)
    operator = ops.InnerProduct(x, w, None, y)
    operator.forward(x, w, None, y)
    operator.backward(dy, x, w, dx, dw, None)
    asked = FP32 if offered == FP32 else made  # a product's output is of its inputs' type or in float32
    assert (y.held, dx.held, dw.held) == (made, asked, FP32)
    np.testing.assert_allclose(y.plain(), x.plain() @ w.plain().T, 2**-6, 2**-4)  # of terms up to 4
    np.testing.assert_allclose(dx.plain(), dy.plain() @ w.plain(), 2**-6, 2**-4)  # of terms up to 4
    np.testing.assert_allclose(dw.plain(), dy.plain().T @ x.plain(), 2**-6, 2**-4)  # of terms up to 4


def flat_slices(backend: CudaBackend) -> tuple[SyncedArray, SyncedArray]:
    flat = backend.flat(24)
    x, y = counting(backend, 11), counting(backend, 11)
    x.bind(flat[1:12])
    y.bind(flat[12:23])
    return x, y


def test_arrays_that_begin_between_packs_are_taken_one_by_one(backend: CudaBackend) -> None:
    x, y = flat_slices(backend)
    x.plain_mutable()[...] -= 5
    ops: Any = backend.operators("DEFAULT")
    ops.AbsVal(x, y).forward(x, y)
    assert y.plain().tolist() == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5]


def test_a_maximum_that_is_no_number_stays(backend: CudaBackend) -> None:
    ops: Any = backend.operators("DEFAULT")
    window = PoolingWindow(method="MAX", kernel=(3, 3), stride=(3, 3), pad=(0, 0))
    for form in (FP32, FP32_LAST, BF16_LAST):
        x, y, argmax = (
            images(backend, 1, 8, 3, 6, form=form),
            backend.array((1, 8, 1, 2)),
            backend.array((1, 8, 1, 2)),
        )
        given = x.plain_mutable()
        given[...] = -np.inf
        given[0, :, 1, 1] = np.nan
        given[0, :, 2, 2] = 1
        operator = ops.Pooling(window, True, x, y, argmax)
        operator.forward(x, y, argmax)
        assert np.isnan(y.plain()[0, :, 0, 0]).all()
        assert (argmax.plain()[0, :, 0, 0] == 7).all()
        assert (y.plain()[0, :, 0, 1] == -np.inf).all()
        assert (argmax.plain()[0, :, 0, 1] == 3).all()


def test_a_launch_reads_and_writes_a_form(backend: CudaBackend) -> None:
    x, y = counting(backend, 2, 3, 4, 5), backend.array((2, 3, 4, 5))
    backend.copy(read(x, form=BF16_LAST), write(y, form=BF16_LAST))
    np.testing.assert_array_equal(y.plain(), x.plain())
