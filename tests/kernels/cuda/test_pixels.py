"""8-bit images become batches on the device as the host would make them, in every form."""

from __future__ import annotations

from typing import Final

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType, to_floats
from tests.kernels.cuda.cpu_device import CpuDevice, from_floats
from tests.kernels.cuda.pixel_rows import Batch

SHAPES: Final = ((5, 3, 7, 9), (2, 1, 5, 3), (3, 4, 8, 8), (1, 3, 1, 1), (2, 3, 1, 40))


@pytest.mark.parametrize("mean", ["channels", "image"])
@pytest.mark.parametrize("is_interleaved", [False, True], ids=["planes", "interleaved"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
def test_in_every_form_values_are_those_of_the_host_bit_for_bit(
    precision: str,
    channels_last: bool,
    shape: tuple[int, int, int, int],
    is_interleaved: bool,
    mean: str,
    descending: bool,
) -> None:
    backend = CudaBackend(CpuDevice(descending=descending), precision=precision)
    backend.memory_format = "channels_last" if channels_last else "blocked"
    batch, top = Batch(shape, is_interleaved=is_interleaved, mean=mean), backend.array(shape)
    batch.operator(backend.operators("DEFAULT"), top).forward(batch.rows(backend), top)
    written = own(top)
    assert written.storage.valid == {backend.form.of(shape)}, "one pass writes the form that is wanted"
    expected = to_floats(from_floats(batch.expected(), backend.values), backend.values)
    np.testing.assert_array_equal(top.plain(), expected)


@pytest.mark.parametrize("is_interleaved", [False, True], ids=["planes", "interleaved"])
def test_the_cpu_gives_what_the_transformer_of_the_host_gives(is_interleaved: bool) -> None:
    backend, batch = CpuBackend(), Batch((5, 3, 7, 9), is_interleaved=is_interleaved, mean="image")
    top = backend.array(batch.shape)
    batch.operator(backend.operators("DEFAULT"), top).forward(batch.rows(backend), top)
    np.testing.assert_array_equal(top.plain(), batch.expected())


def test_a_top_that_is_not_aligned_is_written_value_by_value() -> None:
    backend, batch = CudaBackend(CpuDevice()), Batch((3, 3, 4, 4), is_interleaved=True)
    top = backend.array(batch.shape)
    storage = own(top).storage
    buffer = backend.device.empty(storage.count + 1, np.float32)
    storage.sides[Form(ValueType.FLOAT32)] = buffer[1:]
    batch.operator(backend.operators("DEFAULT"), top).forward(batch.rows(backend), top)
    np.testing.assert_array_equal(top.plain(), batch.expected())


def test_pixels_cannot_be_brought_within_captured_work() -> None:
    backend, batch = CudaBackend(CpuDevice()), Batch((2, 3, 4, 4), is_interleaved=True)
    top = backend.array(batch.shape)
    operator = batch.operator(backend.operators("DEFAULT"), top)
    backend.card.begin_trace(captured=True)
    with pytest.raises(BackendError, match="must not leave the device"):
        operator.forward(batch.rows(backend), top)
    backend.card.end_trace()
