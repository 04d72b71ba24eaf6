"""CUDA = CPU on a card: every operator, in every type, order of axes and precision."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.form import Form, ValueType
from tests.gpu.tolerances import BY_CUDNN, OPERATORS
from tests.kernels.cuda import test_cudnn
from tests.kernels.cuda.bench import compare
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.form_operators import IN_FORMS, ROWS

pytestmark = pytest.mark.gpu

FORMS = {
    "bf16 NHWC": Form(ValueType.BFLOAT16, True),
    "bf16 NCHW": Form(ValueType.BFLOAT16),
    "fp16 NHWC": Form(ValueType.FLOAT16, True),
    "fp16 NCHW": Form(ValueType.FLOAT16),
    "fp32 NHWC": Form(ValueType.FLOAT32, True),
}
PRODUCTS = ("Convolution", "Deconvolution", "InnerProduct", "LSTM", "RNN", "BatchNorm", "Scale", "Bias")


@pytest.mark.parametrize("name", ROWS)
def test_cuda_gives_what_the_cpu_gives(backend: CudaBackend, name: str) -> None:
    rtol, atol = OPERATORS["fp32"]
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], backend, CpuBackend(engine="CAFFE"), rtol=rtol, atol=atol)
    backend.synchronize()


@pytest.mark.parametrize("name", ROWS)
def test_cuda_gives_what_the_cpu_gives_in_float64(device: CupyDevice, name: str) -> None:
    rtol, atol = OPERATORS["fp64"]
    peers = CudaBackend(device, dtype=np.float64), CpuBackend(engine="CAFFE", dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], *peers, rtol=rtol, atol=atol)
    device.synchronize()


@pytest.mark.parametrize("told", FORMS)
@pytest.mark.parametrize("name", IN_FORMS)
def test_cuda_gives_what_the_cpu_gives_in_every_form(backend: CudaBackend, name: str, told: str) -> None:
    rtol, atol = OPERATORS[told.split()[0]]
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(IN_FORMS[name], backend, CpuBackend(engine="CAFFE"), rtol=rtol, atol=atol, form=FORMS[told])
    backend.synchronize()


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith(PRODUCTS)])
def test_products_in_tf32_are_near_the_cpus(make_backend: MakeBackend, name: str) -> None:
    rtol, atol = OPERATORS["tf32"]
    compare(ROWS[name], make_backend("tf32"), CpuBackend(engine="CAFFE"), rtol=rtol, atol=atol)


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("precision", BY_CUDNN)
def test_engine_cudnn_serves_a_convolution(
    make_backend: MakeBackend, precision: str, channels_last: bool
) -> None:
    backend = make_backend(precision)
    backend.card.channels_last = channels_last
    run = ROWS["Convolution 3x3"]
    test_cudnn.compare(run, backend, "CUDNN", *BY_CUDNN[precision], backend.form.type)
    assert test_cudnn.convolution_on(backend, "CUDNN").implementation == "cudnn"
