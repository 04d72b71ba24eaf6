"""Operators by cuDNN give what the CPU gives, on a stand-in that computes graphs from the definitions."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form, ValueType
from tests.kernels.cuda.bench import Bench, Run
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.numpy_cudnn import NumpyCudnn

FORMS = {  # (precision, channels last): relative and absolute tolerance; 16-bit results are rounded once each
    ("fp32", False): (1e-5, 1e-5),
    ("fp32", True): (1e-5, 1e-5),
    ("tf32", True): (1e-5, 1e-5),
    ("bf16", False): (2**-7, 2**-4),
    ("bf16", True): (2**-7, 2**-4),
    ("fp16", False): (2**-10, 2**-7),
    ("fp16", True): (2**-10, 2**-7),
}
BY_CUDNN = [name for name in ROWS if name.startswith(("Convolution", "Deconvolution"))]
BY_KERNELS = [name for name in ROWS if name.startswith("BatchNorm")]
OTHER_AXES = ("line", "volume")


def backend_of(
    module: NumpyCudnn | None, precision: str = "fp32", channels_last: bool = False, **device: bool
) -> CudaBackend:
    libraries = {} if module is None else {"cudnn": module}
    backend = CudaBackend(CpuDevice(libraries=libraries, **device), precision=precision)
    backend.card.channels_last = channels_last
    return backend


def compare(run: Run, backend: CudaBackend, engine: str, rtol: float, atol: float, values: ValueType) -> None:
    """As bench.compare, through an engine; inputs are numbers that the type can hold."""
    form = Form(values) if values is not ValueType.FLOAT32 else None
    mine, theirs = Bench(backend, form), Bench(CpuBackend(engine="CAFFE"), form)
    mine.ops = backend.operators(engine)
    run(mine)
    run(theirs)
    assert mine.results.keys() == theirs.results.keys()
    for name, expected in theirs.results.items():
        np.testing.assert_allclose(mine.results[name], expected, rtol, atol, err_msg=name)


@pytest.mark.parametrize(("precision", "channels_last"), FORMS)
@pytest.mark.parametrize("name", BY_CUDNN)
def test_cudnn_gives_what_the_cpu_gives(name: str, precision: str, channels_last: bool) -> None:
    module = NumpyCudnn()
    backend = backend_of(module, precision, channels_last)
    values = backend.form.type
    compare(ROWS[name], backend, "DEFAULT", *FORMS[precision, channels_last], values)
    assert bool(module.graphs) is not name.endswith(OTHER_AXES)
