"""Batch normalisation in every form, alone and with the ReLU behind it, gives what the CPU gives."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.form import ValueType
from tests.kernels.cuda.bench import Bench
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.test_cudnn import FORMS, backend_of

BY_KERNELS = [name for name in ROWS if name.startswith("BatchNorm")]


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize(("precision", "channels_last"), FORMS)
@pytest.mark.parametrize("name", BY_KERNELS)
def test_normalisation_gives_what_the_cpu_gives(
    name: str, precision: str, channels_last: bool, descending: bool
) -> None:
    backend = backend_of(None, precision, channels_last, descending=descending)
    form = backend.form
    mine, theirs = Bench(backend, form), Bench(CpuBackend(engine="CAFFE"), form)
    ROWS[name](mine)
    ROWS[name](theirs)
    rtol, atol = FORMS[precision, channels_last]
    for key, expected in theirs.results.items():
        # Of a sum of differences of 16-bit numbers, which cancel.
        some = atol if form.type is ValueType.FLOAT32 else 4 * atol
        np.testing.assert_allclose(mine.results[key], expected, rtol, some, err_msg=key)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("shape", [(3, 16, 5, 4), (4, 8, 3, 3), (5, 6, 2, 2), (7, 24), (40, 3, 9, 9)])
@pytest.mark.parametrize(("precision", "channels_last"), FORMS)
def test_a_fused_relu_is_that_behind_the_norm(
    precision: str, channels_last: bool, shape: tuple[int, ...], in_place: bool
) -> None:
    results = []
    for fused in (False, True):
        backend = backend_of(None, precision, channels_last)
        bench = Bench(backend, backend.form)
        x, dy, channels = bench.data(*shape), bench.data(*shape), shape[1]
        y, dx = (x, dy) if in_place else (bench.room(*shape), bench.room(*shape))
        mean, variance, factor = bench.room(channels), bench.room(channels), bench.room(1)
        for statistic in (mean, variance, factor):
            statistic.clear()
        scale, bias = bench.data(channels), bench.data(channels)
        ds, db = backend.array((channels,)), backend.array((channels,))
        norm = bench.ops.BatchNorm(1e-5, 0.9, False, x, y)
        relu = bench.ops.ReLU(0.0, y, y)
        norm.relu = fused
        norm.forward(x, mean, variance, factor, scale, bias, y)
        if not fused:
            relu.forward(y, y)
            relu.backward(dy, y, dy)
        norm.relu = False
        norm.backward(dy, x, scale, dx, ds, db)
        results.append([array.plain().copy() for array in (y, dx, ds, db, mean, variance)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, 1e-5, 1e-5)


def test_a_large_mean_costs_no_digits_of_the_variance() -> None:
    backend, shape = backend_of(None), (8, 4, 6, 6)
    values = np.random.default_rng(1).standard_normal(shape).astype(np.float32) * 0.01 + 100
    x, y = backend.array(shape), backend.array(shape)
    x.plain_overwrite()[...] = values
    mean, variance, factor = backend.array((4,)), backend.array((4,)), backend.array((1,))
    norm = backend.operators("CAFFE").BatchNorm(1e-5, 0.9, False, x, y)
    norm.forward(x, mean, variance, factor, None, None, y)
    exact = values.astype(np.float64).var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(variance.plain(), exact, rtol=1e-4)
