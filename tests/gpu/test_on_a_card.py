"""The tests that run without a card, on one: goldens, operators, solvers; then training and its memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.comm.single import SingleCommunicator
from dtrain.data.convert.mnist import convert_mnist
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net
from dtrain.solvers.settings import Settings
from tests.kernels.cuda.bench import compare
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.test_golden import NAMES, build, check
from tests.kernels.cuda.test_training import solver_on
from tests.layers.golden import cases
from tests.shared import shared_path
from tests.solvers import golden

pytestmark = pytest.mark.gpu

# Float32 on a card: sums in another order, and products and sums rounded once.
RTOL, ATOL = 2e-5, 5e-6
LENET = Path(__file__).parents[2] / "configs" / "lenet"


def test_a_card_is_usable(backend: CudaBackend) -> None:
    assert backend.describe().startswith("GPU 0")


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_gives_the_numbers_of_caffe(backend: CudaBackend, name: str) -> None:
    case = cases()[name]
    check(build(case, backend), case)


@pytest.mark.parametrize("name", ROWS)
def test_cuda_gives_what_the_cpu_gives(backend: CudaBackend, name: str) -> None:
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], backend, CpuBackend(engine="CAFFE"), rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize("name", ROWS)
def test_cuda_gives_what_the_cpu_gives_in_float64(device: CupyDevice, name: str) -> None:
    peers = CudaBackend(device, dtype=np.float64), CpuBackend(engine="CAFFE", dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        compare(ROWS[name], *peers, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", golden.NAMES)
def test_every_solver_has_the_weights_of_caffe(backend: CudaBackend, name: str) -> None:
    solver = solver_on(name, backend)
    golden.start_as_caffe(solver, name)
    for it in range(12):
        (loss,) = golden.train(solver, it + 1)
        np.testing.assert_allclose(loss, golden.stored()[f"{name}|loss"][it], rtol=1e-4)
        golden.assert_weights(solver, golden.weights_at(name, it + 1), f"after iteration {it}")


def test_a_run_is_the_same_bit_for_bit_twice(device: CupyDevice) -> None:
    ends = []
    for _ in range(2):
        solver = solver_on(golden.NAMES[0], CudaBackend(device))
        golden.start_as_caffe(solver, golden.NAMES[0])
        golden.train(solver, 6)
        ends.append([param.blob.data.plain().copy() for param in solver.net.params.owned])
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, other)


def lenet(backend: Backend, folder: Path, iterations: int) -> Solver:
    """LeNet's own configuration on MNIST, the databases made in the folder."""
    convert_mnist(str(shared_path("data", "mnist")), str(folder))
    param, source = read_solver(LENET / "solver.prototxt")
    param.max_iter = iterations
    param.snapshot = 0
    param.snapshot_prefix = str(folder / "lenet")
    net, _ = read_net(LENET / "train_val.prototxt")
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.source = str(folder / Path(layer.data_param.source).name)
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    settings, group = Settings(param, source), SingleCommunicator()
    train = build_train_net(settings, backend, group, seed=1)
    tests = build_test_nets(settings, backend, group, 1, train)
    return Solver(param, train, tests, group, source=source)


@pytest.mark.timeout(600)
def test_lenet_learns_mnist(backend: CudaBackend, tmp_path: Path) -> None:
    solver = lenet(backend, tmp_path, 2000)
    solver.solve()
    (test_net,) = solver.test_nets
    right = []
    for _ in range(50):
        test_net.forward()
        right.append(float(test_net.blob("accuracy").data.plain()))
    assert np.mean(right) > 0.98
    solver.close()


def test_a_thousand_iterations_take_no_more_memory(device: CupyDevice) -> None:
    import cupy

    solver = solver_on(golden.NAMES[0], CudaBackend(device))
    golden.feed(solver)
    solver.step(10)
    golden.feed(solver)
    pool = cupy.get_default_memory_pool()
    before = pool.used_bytes()
    for _ in range(1000):
        solver.net.clear_param_diffs()
        solver.net.forward()
        solver.net.backward()
    assert pool.used_bytes() == before
