"""Training on batches of pixels: replayed as eager, late as early, and as on batches of the host."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.layers.record_layer import RecordLayer
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net
from dtrain.solvers.settings import Settings
from tests.data.sources import images, lmdb_of
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.kernels.cuda.numpy_cupy import Cupy

NET = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { crop_size: 10 mirror: true mean_value: 120 scale: 0.0078125 FIELDS }
  data_param { source: "SOURCE" backend: LMDB batch_size: 6 prefetch: 1 shuffle: true } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { crop_size: 10 mean_value: 120 scale: 0.0078125 FIELDS }
  data_param { source: "SOURCE" backend: LMDB batch_size: 5 prefetch: 1 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 40 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
ITERATIONS = 7


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(lmdb_of(tmp_path_factory.mktemp("pixels") / "db", images(40, (3, 12, 14))))


def solver_of(source: str, backend: CudaBackend, fields: str = "", prefix: str = "") -> Solver:
    param = pb.SolverParameter(
        base_lr=0.05, momentum=0.9, lr_policy="fixed", max_iter=100, random_seed=1, test_interval=3
    )
    param.snapshot_prefix = prefix
    param.test_iter.append(2)
    text.parse(NET.replace("SOURCE", source).replace("FIELDS", fields), param.net_param)
    settings, group = Settings(param, None), SingleCommunicator()
    net = build_train_net(settings, backend, group, 1, Plan())
    tests = build_test_nets(settings, backend, group, 1, net, Plan())
    return Solver(param, net, tests, group)


def weights(solver: Solver) -> list[NDArray[np.float32]]:
    return [owned.blob.data.plain().copy() for owned in solver.net.params.owned]


def trained(solver: Solver) -> list[NDArray[np.float32]]:
    """All parameters after some iterations, with tests in between."""
    solver.step(ITERATIONS)
    got = weights(solver)
    for net in (solver.net, *solver.test_nets):
        source = net.layer("data")
        assert isinstance(source, RecordLayer)
        source.close()
    return got


def check_equal(mine: list[NDArray[np.float32]], theirs: list[NDArray[np.float32]]) -> None:
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def takes_pixels(solver: Solver) -> bool:
    source = solver.net.layer("data")
    assert isinstance(source, RecordLayer)
    return source.pixels is not None


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_replayed_training_on_pixels_is_that_of_layers_that_run(source: str, precision: str) -> None:
    replayed, eager = (solver_of(source, CudaBackend(CpuDevice(), precision=precision)) for _ in range(2))
    eager.net.replayer = None
    assert takes_pixels(replayed)
    check_equal(trained(replayed), trained(eager))
    assert isinstance(replayed.net.replayer, GraphReplayer)
    assert replayed.net.replayer.num_graphs > 0, "the passes were captured"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_on_pixels_is_that_on_batches_of_the_host(source: str, precision: str) -> None:
    pixels = solver_of(source, CudaBackend(CpuDevice(), precision=precision))
    floats = solver_of(source, CudaBackend(CpuDevice(), precision=precision), "use_gpu_transform: false")
    assert takes_pixels(pixels)
    assert not takes_pixels(floats)
    check_equal(trained(pixels), trained(floats))


@pytest.fixture(params=[False, True], ids=["late", "copies first"])
def card(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CudaBackend:
    Cupy(capability="80", copies_first=request.param).install(monkeypatch)
    return CudaBackend(CupyDevice(0), precision="bf16")


def test_a_card_that_is_late_trains_as_one_that_is_not(source: str, card: CudaBackend) -> None:
    early = solver_of(source, CudaBackend(CpuDevice(), precision="bf16"))
    late = solver_of(source, card)
    assert takes_pixels(late)
    check_equal(trained(late), trained(early))


def test_a_run_on_pixels_resumes_bit_for_bit(source: str, tmp_path: Path) -> None:
    whole, first, second = (
        solver_of(source, CudaBackend(CpuDevice()), prefix=str(tmp_path / part))
        for part in ("whole", "part", "part")
    )
    first.step(4)
    first.snapshot(wait=True)
    second.restore(next(tmp_path.glob("part_iter_4.solverstate*")))
    second.step(ITERATIONS - 4)
    check_equal(weights(second), trained(whole))
