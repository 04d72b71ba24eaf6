"""Scripts that call set_mode_gpu; the card is the device that runs CUDA kernels on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import BackendError
from dtrain.kernels.cuda import cupy_device
from dtrain.pycaffe import process
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.pycaffe.nets import IMAGES, SIMPLE, TRAINED, write_net, write_solver

Make = Callable[[], Any]


@pytest.fixture(autouse=True)
def cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Two of them; the numbers of those that were opened."""
    opened: list[int] = []

    def open_card(number: int) -> CpuDevice:
        opened.append(number)
        return CpuDevice()

    monkeypatch.setattr(cupy_device, "count", lambda: 2)
    monkeypatch.setattr(cupy_device, "CupyDevice", open_card)
    process.process.cache_clear()
    yield opened
    process.process.cache_clear()


def on_both(make: Make) -> tuple[Any, Any]:
    """What is made on the CPU and on the GPU from the same random numbers."""
    caffe.set_mode_cpu()
    caffe.set_random_seed(3)
    cpu = make()
    caffe.set_mode_gpu()
    caffe.set_random_seed(3)
    return cpu, make()


def test_a_net_computes_what_it_computes_on_the_cpu(tmp_path: Path) -> None:
    file = write_net(tmp_path, SIMPLE)
    nets = on_both(lambda: caffe.Net(file, caffe.TRAIN))
    for net in nets:
        net.blobs["data"].data[...] = 0
        net.blobs["label"].data[...] = 1
        net.forward(start="conv")
        net.backward()
    cpu, gpu = nets
    for name, blob in cpu.blobs.items():
        np.testing.assert_allclose(gpu.blobs[name].data, blob.data, 1e-4, 1e-5, err_msg=name)
    for name, blobs in cpu.params.items():
        for mine, other in zip(gpu.params[name], blobs, strict=True):
            np.testing.assert_allclose(mine.diff, other.diff, 1e-4, 1e-5, err_msg=name)


def test_a_view_that_a_script_holds_is_read_and_shows_what_kernels_write(tmp_path: Path) -> None:
    caffe.set_mode_gpu()
    net = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    seen, given = net.blobs["prob"].data, net.blobs["data"].data
    given[...] = 1
    net.forward()
    first = seen.copy()
    given[0] = -1
    net.forward()
    assert not np.array_equal(seen[0], first[0])
    np.testing.assert_array_equal(seen[1], first[1])
    weights = net.params["fc"][0].data
    weights[...] = 0
    net.forward()
    np.testing.assert_allclose(seen, 0.1, rtol=1e-5)


def test_a_solver_trains_to_the_weights_of_the_cpu(tmp_path: Path) -> None:
    file = write_solver(tmp_path, write_net(tmp_path, TRAINED))
    ends = []
    for solver in on_both(lambda: caffe.SGDSolver(file)):
        rng = np.random.default_rng(7)
        for _ in range(5):
            solver.net.blobs["data"].data[...] = rng.standard_normal((8, 6))
            solver.net.blobs["label"].data[...] = rng.integers(0, 3, 8)
            solver.step(1)
        ends.append({name: blobs[0].data.copy() for name, blobs in solver.net.params.items()})
    for name, weights in ends[0].items():
        np.testing.assert_allclose(ends[1][name], weights, 1e-4, 1e-6, err_msg=name)


def test_the_device_is_opened_once_and_not_before_it_is_used(tmp_path: Path, cards: list[int]) -> None:
    file = write_net(tmp_path, IMAGES)
    caffe.set_mode_gpu()
    caffe.set_device(1)
    assert cards == []
    net = caffe.Net(file, caffe.TEST)
    other = caffe.Net(file, caffe.TEST)
    other.share_with(net)
    assert cards == [1]
    caffe.set_device(0)
    with pytest.raises(BackendError, match="one GPU, got 0 after a net on 1; start another process"):
        caffe.Net(file, caffe.TEST)
    assert cards == [1]
    caffe.set_mode_cpu()
    assert caffe.Net(file, caffe.TEST).forward()["prob"].shape == (2, 10)
