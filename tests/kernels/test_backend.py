"""The CPU backend finds operators, and computes without oneDNN where its wheel is not installed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from dtrain.errors import BackendError
from dtrain.kernels.cpu import backend as cpu_backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.onednn import memory
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.loop import Solver

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
  input_param { shape { dim: 8 dim: 2 dim: 9 dim: 9 } shape { dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 5 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@pytest.fixture
def no_onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that oneDNN's wheel is not made for."""

    def refuse() -> None:
        raise BackendError("oneDNN: the package onednn-cpu-gomp must be installed, got none")

    monkeypatch.setattr(cpu_backend.dnnl, "Engine", refuse)
    monkeypatch.setattr(memory, "library", refuse)
    memory.plain.cache_clear()
    yield
    memory.plain.cache_clear()


def losses(backend: CpuBackend) -> list[float]:
    param = pb.NetParameter()
    text.parse(NET, param)
    net = Net(param, Scope(backend, pb.TRAIN, rng=np.random.default_rng(3)), plan=Plan())
    rng = np.random.default_rng(4)
    net.blob("data").data.plain_overwrite()[...] = rng.standard_normal((8, 2, 9, 9))
    net.blob("label").data.plain_overwrite()[...] = rng.integers(0, 3, 8)
    solver = Solver(pb.SolverParameter(base_lr=0.1, lr_policy="fixed", momentum=0.9, max_iter=99), net)
    found = []
    for _ in range(10):
        solver.step(1)
        found.append(float(net.blob("loss").data.plain()))
    return found


def test_a_machine_without_onednn_trains_to_the_same_losses(no_onednn: None) -> None:
    without = CpuBackend()
    assert without.engine is None
    assert "NumPy" in without.describe()
    slow = losses(without)
    assert slow[-1] < 0.5 * slow[0]
    np.testing.assert_allclose(slow, losses(CpuBackend(engine="CAFFE")), rtol=1e-4)


def test_onednn_gives_the_same_losses_as_numpy() -> None:
    np.testing.assert_allclose(losses(CpuBackend()), losses(CpuBackend(engine="CAFFE")), rtol=1e-4)


def test_engine_mkldnn_without_onednn_is_an_error(no_onednn: None) -> None:
    with pytest.raises(BackendError, match="onednn-cpu-gomp"):
        CpuBackend(engine="MKLDNN")


def test_an_unknown_engine_is_told_with_the_nearest() -> None:
    with pytest.raises(BackendError, match='did you mean "MKLDNN"'):
        CpuBackend().operators("MKLDN")
