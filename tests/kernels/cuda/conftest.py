"""The device that tests here share with those of tests/gpu, where it is a card."""

from __future__ import annotations

from typing import Protocol

import pytest

from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.numpy_cudnn import NumpyCudnn


class MakeBackend(Protocol):
    """A backend of its own on the device that tests are run on."""

    def __call__(self, precision: str = "", *, with_cudnn: bool = ...) -> CudaBackend: ...


@pytest.fixture
def make_backend() -> MakeBackend:
    """Its kernels are run by the CPU."""

    def make(precision: str = "", *, with_cudnn: bool = False) -> CudaBackend:
        libraries = {"cudnn": NumpyCudnn()} if with_cudnn else {}
        return CudaBackend(CpuDevice(libraries=libraries), precision=precision)

    return make
