"""oneDNN's and numba's operators compute what the NumPy ones define, in every layout."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu import concat, convolution, dropout, lrn, pooling, relu, softmax_loss, sum
from dtrain.kernels.cpu.array import CpuArray
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.jit import dropout as jit_dropout
from dtrain.kernels.cpu.jit import softmax_loss as jit_softmax_loss
from dtrain.kernels.cpu.onednn import concat as onednn_concat
from dtrain.kernels.cpu.onednn import convolution as onednn_convolution
from dtrain.kernels.cpu.onednn import library as dnnl
from dtrain.kernels.cpu.onednn import lrn as onednn_lrn
from dtrain.kernels.cpu.onednn import pooling as onednn_pooling
from dtrain.kernels.cpu.onednn import relu as onednn_relu
from dtrain.kernels.cpu.onednn import sum as onednn_sum
from dtrain.kernels.normalizer import Normalizer
from dtrain.kernels.window import ConvolutionWindow, PoolingWindow

BLOCKED16 = 78  # dnnl_nChw16c
LAYOUTS = {"plain": dnnl.PLAIN_TAG[4], "blocked": BLOCKED16, "channels_last": dnnl.CHANNELS_LAST_TAG[4]}

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(params=list(LAYOUTS))
def layout(request: pytest.FixtureRequest) -> int:
    return LAYOUTS[request.param]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def array(backend: CpuBackend, values: NDArray[np.floating], layout: int | None = None) -> CpuArray:
    made = backend.array(values.shape)
    made.plain_overwrite()[...] = values
    if layout is not None:
        made.offer_layout(dnnl.desc(values.shape, layout))
    return made


def poisoned(backend: CpuBackend, shape: tuple[int, ...]) -> CpuArray:
    return array(backend, np.full(shape, np.nan, np.float32))


def assert_close(got: SyncedArray, expected: SyncedArray) -> None:
    np.testing.assert_allclose(got.plain(), expected.plain(), **TOLERANCE)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("relu_after", [False, True])
@pytest.mark.parametrize("memory_format", ["blocked", "channels_last"])
def test_convolution_agrees_and_adds_to_parameter_diffs(
    group: int, relu_after: bool, memory_format: str, layout: int, rng: np.random.Generator
) -> None:
    backend = CpuBackend(memory_format=memory_format)
    window = ConvolutionWindow(kernel=(3, 2), stride=(2, 1), pad=(1, 0), dilation=(1, 2), group=group)
    x = rng.standard_normal((2, 6, 9, 8)).astype(np.float32)
    w = rng.standard_normal((10, 6 // group, 3, 2)).astype(np.float32)
    b = rng.standard_normal(10).astype(np.float32)
    out = (2, 10, *window.convolved((9, 8)))
    dy = rng.standard_normal(out).astype(np.float32)
    results = []
    for cls, tag in ((convolution.Convolution, None), (onednn_convolution.Convolution, layout)):
        arrays = array(backend, x, tag), array(backend, w), array(backend, b)
        top, dx = poisoned(backend, out), poisoned(backend, x.shape)
        dw, db = backend.array(w.shape), backend.array(b.shape)
        op = cls(backend, window, *arrays, top, relu_after)
        op.forward(*arrays, top)
        for _ in range(2):  # the second pass adds to the first
            op.backward(array(backend, dy, tag), arrays[0], arrays[1], dx, dw, db)
        results.append((top, dx, dw, db))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 2, 0), (3, 2, 1), (2, 2, 0), (3, 1, 1)])
def test_pooling_agrees(
    method: str, kernel: int, stride: int, pad: int, layout: int, rng: np.random.Generator
) -> None:
    backend = CpuBackend()
    window = PoolingWindow(method=method, kernel=(kernel, kernel), stride=(stride, stride), pad=(pad, pad))
    x = rng.permutation(2 * 20 * 7 * 8).reshape(2, 20, 7, 8).astype(np.float32)  # no ties
    out = (2, 20, *window.pooled((7, 8)))
    dy = rng.standard_normal(out).astype(np.float32)
    results = []
    for cls, tag in ((pooling.Pooling, None), (onednn_pooling.Pooling, layout)):
        bottom, top, dx = array(backend, x, tag), poisoned(backend, out), poisoned(backend, x.shape)
        try:
            op = cls(backend, window, True, bottom, top, None)
        except dnnl.Unsupported:
            assert method == "AVE"
            assert pad
            return  # the NumPy operator serves
        op.forward(bottom, top, None)
        op.backward(array(backend, dy), dx)
        results.append((top, dx))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("engine", ["CAFFE", "DEFAULT"])
def test_max_pooling_of_a_window_behind_the_image_takes_nothing(engine: str) -> None:
    backend = CpuBackend(engine=engine)
    window = PoolingWindow(method="MAX", kernel=(2, 2), stride=(3, 3), pad=(0, 0))
    x = np.arange(81, dtype=np.float32).reshape(1, 1, 9, 9)
    bottom, top, dx = array(backend, x), poisoned(backend, (1, 1, 4, 4)), poisoned(backend, x.shape)
    op = backend.operators("DEFAULT").Pooling(window, True, bottom, top, None)
    op.forward(bottom, top, None)
    y = top.plain()
    np.testing.assert_array_equal(y[0, 0, :3, :3], x[0, 0, 1::3, 1::3])
    assert (y[0, 0, 3] == np.finfo(np.float32).min).all()
    assert (y[0, 0, :, 3] == np.finfo(np.float32).min).all()
    op.backward(array(backend, np.ones((1, 1, 4, 4), np.float32)), dx)
    assert dx.plain().sum() == 9
    assert (dx.plain()[0, 0, 1::3, 1::3] == 1).all()


@pytest.mark.parametrize("slope", [0.0, 0.25])
@pytest.mark.parametrize("in_place", [False, True])
def test_relu_agrees(slope: float, in_place: bool, layout: int, rng: np.random.Generator) -> None:
    backend = CpuBackend()
    x, dy = rng.standard_normal((2, 2, 17, 5, 3)).astype(np.float32)
    results = []
    for cls, tag in ((relu.ReLU, None), (onednn_relu.ReLU, layout)):
        bottom, dtop = array(backend, x, tag), array(backend, dy)
        top = bottom if in_place else poisoned(backend, x.shape)
        dx = dtop if in_place else poisoned(backend, x.shape)
        op = cls(backend, slope, bottom, top)
        op.forward(bottom, top)
        op.backward(dtop, bottom, dx)
        results.append((top, dx))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


def test_lrn_agrees(layout: int, rng: np.random.Generator) -> None:
    backend = CpuBackend()
    x, dy = rng.standard_normal((2, 2, 32, 4, 3)).astype(np.float32)
    results = []
    for cls, tag in ((lrn.LRN, None), (onednn_lrn.LRN, layout)):
        bottom, top, dx = array(backend, x, tag), poisoned(backend, x.shape), poisoned(backend, x.shape)
        op = cls(backend, "ACROSS_CHANNELS", 5, 0.3, 0.75, 2.0, bottom, top)
        op.forward(bottom, top)
        op.backward(array(backend, dy), bottom, top, dx)
        results.append((top, dx))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


def test_sum_agrees(layout: int, rng: np.random.Generator) -> None:
    backend = CpuBackend()
    parts = rng.standard_normal((3, 2, 17, 4, 3)).astype(np.float32)
    results = []
    for cls, tag in ((sum.Sum, None), (onednn_sum.Sum, layout)):
        bottoms = [array(backend, parts[0]), array(backend, parts[1], tag), array(backend, parts[2], tag)]
        top = poisoned(backend, parts[0].shape)
        cls(backend, [1.0, -0.5, 2.0], bottoms, top).forward(bottoms, top)
        results.append(top)
    assert_close(results[1], results[0])


@pytest.mark.parametrize("channels", [(16, 32, 16), (20, 12), (3, 5)])
def test_concat_agrees(channels: tuple[int, ...], layout: int, rng: np.random.Generator) -> None:
    backend = CpuBackend()
    parts = [rng.standard_normal((2, c, 4, 3)).astype(np.float32) for c in channels]
    dy = rng.standard_normal((2, np.sum(channels), 4, 3)).astype(np.float32)
    results = []
    for cls, tag in ((concat.Concat, None), (onednn_concat.Concat, layout)):
        bottoms = [array(backend, part, tag) for part in parts]
        top, diffs = poisoned(backend, dy.shape), [poisoned(backend, part.shape) for part in parts]
        op = cls(backend, 1, bottoms, top)
        op.forward(bottoms, top)
        op.backward(array(backend, dy, tag), diffs)
        results.append((top, *diffs))
    for expected, got in zip(*results, strict=True):
        assert_close(got, expected)


@pytest.mark.parametrize("shape", [(4, 7), (3, 5, 2, 3), (16, 512), (5, 1)])
@pytest.mark.parametrize("in_place", [False, True])
def test_dropout_draws_the_same_mask(
    shape: tuple[int, ...], in_place: bool, rng: np.random.Generator
) -> None:
    backend = CpuBackend()
    x = rng.standard_normal(shape).astype(np.float32)
    results = []
    for cls in (dropout.Dropout, jit_dropout.Dropout):
        bottom = array(backend, x)
        top = bottom if in_place else poisoned(backend, shape)
        op = cls(backend, 0.4, 1, 3, bottom, top)
        op.draw(2**63 + 12345)
        op.forward(bottom, top)
        results.append(top)
    assert_close(results[1], results[0])
    assert (results[1].plain() == 0).any()


SOFTMAX_LOSSES = (softmax_loss.SoftmaxLoss, jit_softmax_loss.SoftmaxLoss)


@pytest.mark.parametrize("ignore_label", [None, 3])
def test_softmax_loss_agrees(ignore_label: int | None, rng: np.random.Generator) -> None:
    backend = CpuBackend()
    x = (10 * rng.standard_normal((9, 7))).astype(np.float32)
    x[0] = [200, 0, 0, 0, 0, 0, 0]  # so sure of class 0 that any other has probability 0
    labels = np.array([1, 3, 3, 0, 6, 5, 2, 1, 4], np.float32)
    results = []
    for cls in SOFTMAX_LOSSES:
        op = cls(backend, 1, ignore_label, None, 0.0, x.shape, Normalizer())
        loss, prob, dx = poisoned(backend, ()), poisoned(backend, x.shape), poisoned(backend, x.shape)
        op.forward(array(backend, x), array(backend, labels), prob, loss)
        op.backward(prob, array(backend, labels), array(backend, np.float32(0.3)), dx)
        results.append((loss, prob, dx))
    theirs, ours = results
    for mine, other in zip(ours, theirs, strict=True):
        assert_close(mine, other)


@pytest.mark.parametrize("wrong", [7.0, -1.0, np.nan])
@pytest.mark.parametrize("cls", SOFTMAX_LOSSES)
def test_softmax_loss_names_the_sample_of_a_wrong_label(cls: type, wrong: float) -> None:
    backend = CpuBackend()
    labels = array(backend, np.array([0, 1, wrong], np.float32))
    op = cls(backend, 1, None, None, 0.0, (3, 7), Normalizer())
    with pytest.raises(DataError, match="label of sample 2 of the batch"):
        op.forward(backend.array((3, 7)), labels, backend.array((3, 7)), backend.array(()))


@pytest.mark.parametrize("cls", SOFTMAX_LOSSES)
def test_softmax_loss_of_scores_that_are_no_numbers_is_none(cls: type) -> None:
    backend = CpuBackend()
    scores = array(backend, np.full((2, 3), np.nan, np.float32))
    op = cls(backend, 1, None, None, 0.0, (2, 3), Normalizer())
    loss = backend.array(())
    op.forward(scores, backend.array((2,)), backend.array((2, 3)), loss)
    assert np.isnan(loss.plain())
