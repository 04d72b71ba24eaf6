"""Dropout on a device: the mask of the CPU in every form, drawn anew in every replay of a captured pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.array import Shape
from dtrain.kernels.cpu.dropout import kept
from dtrain.kernels.cuda.array import CudaArray
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType
from tests.kernels.cuda.cpu_device import CpuDevice

RATIO, RANK, SIZE = 0.4, 1, 3
KEYS = (2**63 + 5, 7)


def small_numbers(shape: Shape) -> NDArray[Any]:
    """Whole numbers that 16 bits hold, none of them zero."""
    return np.random.default_rng(3).integers(1, 9, shape).astype(np.float32)


def offered(backend: CudaBackend, values: NDArray[Any], form: Form) -> CudaArray:
    array = backend.array(values.shape)
    array.offer(form)
    array.plain_overwrite()[...] = values
    return array


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", [ValueType.FLOAT32, ValueType.BFLOAT16, ValueType.FLOAT16])
@pytest.mark.parametrize("shape", [(3, 5, 3, 7), (2, 4, 2, 2), (4, 9), (3, 5, 1, 1)])
def test_every_form_has_the_mask_of_caffes_order(shape: Shape, kind: ValueType, channels_last: bool) -> None:
    backend = CudaBackend(CpuDevice())
    values = small_numbers(shape)
    form = Form(kind, channels_last)
    x, dy = offered(backend, values, form), offered(backend, values, form)
    y, dx = backend.array(shape), backend.array(shape)
    op = backend.operators("DEFAULT").Dropout(RATIO, RANK, SIZE, x, y)
    assert y.form == x.form == form.of(shape)
    op.draw(KEYS[0])
    op.forward(x, y)
    op.backward(dy, dx)
    assert y.storage.valid == dx.storage.valid == {form.of(shape)}
    scaled = values * np.float32(1 / (1 - RATIO))
    rounding = {ValueType.FLOAT32: 1e-6, ValueType.FLOAT16: 1e-3, ValueType.BFLOAT16: 8e-3}[kind]
    mask = kept(KEYS[0], RATIO, RANK, SIZE, shape)
    for array in (y, dx):
        np.testing.assert_array_equal(array.plain() != 0, mask)
        np.testing.assert_allclose(array.plain()[mask], scaled[mask], rtol=rounding)


def test_a_copy_in_16_bits_is_exact() -> None:
    backend = CudaBackend(CpuDevice())
    values = small_numbers((2, 3, 2, 2))
    x, y = offered(backend, values, Form(ValueType.BFLOAT16, True)), backend.array(values.shape)
    backend.operators("DEFAULT").Dropout(0.0, 0, 1, x, y).forward(x, y)
    np.testing.assert_array_equal(y.plain(), values)


def test_a_replay_takes_the_mask_of_its_own_key() -> None:
    device = CpuDevice()
    backend = CudaBackend(device)
    values = small_numbers((5, 9))
    x, y = offered(backend, values, Form(ValueType.FLOAT32)), backend.array(values.shape)
    op = backend.operators("DEFAULT").Dropout(RATIO, RANK, SIZE, x, y)
    x.pull()
    device.begin_capture()
    op.draw(KEYS[0])
    op.forward(x, y)
    replay = device.end_capture()
    for key in KEYS:
        op.draw(key)
        backend.card.variables.flush()
        replay.launch()
        y.push()
        np.testing.assert_array_equal(y.plain() != 0, kept(key, RATIO, RANK, SIZE, values.shape))
