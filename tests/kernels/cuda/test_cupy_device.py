"""The device that is a card: what it asks of CuPy, and what it says where there is none."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.device import Product
from tests.kernels.cuda import numpy_cupy
from tests.kernels.cuda.bench import compare
from tests.kernels.cuda.more_operators import ROWS

NAMES = [
    "ReLU[0.0] in place",
    "Convolution in groups",
    "Deconvolution 3x3",
    "InnerProduct",
    "InnerProduct transposed",
    "Pooling MAX that overlaps",
    "BatchNorm with scale",
    "SoftmaxLoss (3, 5, 4, 3) that ignores",
    "LSTM with a static input",
    "Embed",
]


def stand_in(monkeypatch: pytest.MonkeyPatch, cupy: Any) -> None:
    """Let `import cupy` find this."""
    real = importlib.import_module

    def find(name: str, package: str | None = None) -> Any:
        if name == "cupy":
            return cupy
        return numpy_cupy.CUBLAS if name == "cupy_backends.cuda.libs.cublas" else real(name, package)

    monkeypatch.setattr(cupy_device.importlib, "import_module", find)


@pytest.mark.parametrize("name", NAMES)
def test_operators_run_through_cupys_interface(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    stand_in(monkeypatch, numpy_cupy.module())

    compare(ROWS[name], CudaBackend(CupyDevice(0)), CpuBackend(engine="CAFFE"))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_a_product_is_row_major(
    monkeypatch: pytest.MonkeyPatch, transpose_a: bool, transpose_b: bool, kind: type[np.floating[Any]]
) -> None:
    stand_in(monkeypatch, numpy_cupy.module())
    device = CupyDevice(0)
    rng = np.random.default_rng(0)
    m, n, k, batch = 3, 5, 7, 2
    a, b, c = (rng.random(size).astype(kind) for size in (m * k, batch * k * n, batch * m * n))
    on_device = []
    for values in (a, b, c):
        buffer = device.empty(values.size, kind)
        device.upload(values, buffer)
        on_device.append(buffer)
    product = Product(m, n, k, transpose_a, transpose_b, 0.5, 2.0, batch, 0, k * n, m * n)
    device.gemm(product, *on_device)
    got = device.host(c.size, kind)
    device.download(on_device[2], got)
    left = a.reshape(k, m).T if transpose_a else a.reshape(m, k)
    right = b.reshape(batch, n, k).transpose(0, 2, 1) if transpose_b else b.reshape(batch, k, n)
    expected = 0.5 * (left @ right) + 2 * c.reshape(batch, m, n)
    np.testing.assert_allclose(got.reshape(batch, m, n), expected, rtol=1e-5)


def test_the_description_names_card_and_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=2))
    told = CudaBackend(CupyDevice(1)).describe()
    assert told == "GPU 1: NumPy, 80 GiB, CUDA 13.2, CuPy 14.2.0, direct kernels and cuBLAS"


def test_without_cupy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendError, match=r"pip install 'dtrain\[cuda12\]'.*-cpu"):
        CupyDevice(0)


def test_without_a_driver_its_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(fault="cudaErrorInsufficientDriver"))
    with pytest.raises(BackendError, match="driver must be there, got cudaErrorInsufficientDriver"):
        CupyDevice(0)


def test_without_a_card_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=0))
    with pytest.raises(BackendError, match="at least 1 card must be visible, got 0"):
        CupyDevice(0)


def test_a_card_beyond_the_last_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, numpy_cupy.module(cards=2))
    with pytest.raises(BackendError, match=r"number must be in \[0, 2\), got 2"):
        CupyDevice(2)


def test_nothing_imports_cupy_before_a_device_is_made() -> None:
    code = (
        "import pkgutil, importlib, sys, dtrain.kernels.cuda as here\n"
        "for module in pkgutil.iter_modules(here.__path__):\n"
        "    importlib.import_module(f'dtrain.kernels.cuda.{module.name}')\n"
        "sys.exit('cupy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
