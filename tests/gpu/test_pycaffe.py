"""Scripts that call set_mode_gpu, on a card."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dtrain import pycaffe as caffe
from dtrain.kernels.cuda import cupy_device
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.pycaffe import process
from tests.pycaffe.test_gpu_mode import (
    test_a_net_computes_what_it_computes_on_the_cpu,
    test_a_solver_trains_to_the_weights_of_the_cpu,
    test_a_view_that_a_script_holds_is_read_and_shows_what_kernels_write,
)

__all__ = [
    "test_a_net_computes_what_it_computes_on_the_cpu",
    "test_a_solver_trains_to_the_weights_of_the_cpu",
    "test_a_view_that_a_script_holds_is_read_and_shows_what_kernels_write",
]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def card(device: CupyDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The one that all tests of this process use: a second would take the current stream from it."""
    monkeypatch.setattr(cupy_device, "CupyDevice", lambda number: device)
    process.process.cache_clear()
    yield
    caffe.set_mode_cpu()
    process.process.cache_clear()
    device.synchronize()
