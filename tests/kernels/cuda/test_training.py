"""Whole nets on the CUDA backend, its kernels run by the CPU: solvers, snapshots, fused layers."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.shared import shared_path
from tests.solvers.golden import NAMES, assert_weights, start_as_caffe, stored, train, weights_at

LENET = Path(__file__).parents[3] / "configs" / "lenet" / "train_val.prototxt"


def solver_on(name: str, backend: Backend, prefix: Path | None = None, plan: Plan | None = None) -> Solver:
    """The golden configuration's solver."""
    path = shared_path("golden", "solvers", f"{name}.solver.prototxt")
    param, source = read_solver(path)
    param.snapshot = 0
    if prefix is not None:
        param.snapshot_prefix = str(prefix)
    description, _ = read_net(path.parent / param.net)
    param.ClearField("net")
    param.net_param.CopyFrom(description)
    group = SingleCommunicator()
    net = build_train_net(Settings(param, source), backend, group, 1, plan)
    return Solver(param, net, (), group, source=source)


def check_golden(solver: Solver, name: str) -> None:
    """Caffe's losses and weights, iteration by iteration."""
    start_as_caffe(solver, name)
    for it in range(12):
        (loss,) = train(solver, it + 1)
        np.testing.assert_allclose(loss, stored()[f"{name}|loss"][it], rtol=1e-4, err_msg=f"iteration {it}")
        assert_weights(solver, weights_at(name, it + 1), f"after iteration {it}")


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", NAMES)
def test_solver_has_the_weights_and_losses_of_caffe(name: str, descending: bool) -> None:
    check_golden(solver_on(name, CudaBackend(CpuDevice(descending=descending))), name)


def test_a_snapshot_resumes_bit_for_bit(make_backend: MakeBackend, tmp_path: Path) -> None:
    name = NAMES[0]
    whole, first, second = (
        solver_on(name, make_backend(), tmp_path / part) for part in ("whole", "part", "part")
    )
    for solver in (whole, first):
        start_as_caffe(solver, name)
    train(whole, 8)
    train(first, 4)
    first.snapshot(wait=True)
    second.restore(next(tmp_path.glob("part_iter_4.solverstate*")))
    train(second, 8)
    for mine, other in zip(second.net.params.owned, whole.net.params.owned, strict=True):
        np.testing.assert_array_equal(mine.blob.data.plain(), other.blob.data.plain())


@functools.cache
def lenet() -> pb.NetParameter:
    """LeNet fed by hand, five images at once."""
    net, _ = read_net(LENET)
    kept = [layer for layer in net.layer if layer.type != "Data" and not layer.include]
    param = pb.NetParameter(name="LeNet")
    source = param.layer.add(name="in", type="Input", top=["data", "label"])
    source.input_param.shape.add().dim.extend([5, 1, 28, 28])
    source.input_param.shape.add().dim.extend([5])
    param.layer.extend(kept)
    return param


@pytest.mark.parametrize("planned", [False, True])
def test_lenet_has_the_gradients_of_the_cpu(make_backend: MakeBackend, planned: bool) -> None:
    nets = []
    for backend in (make_backend(), CpuBackend(engine="CAFFE")):
        plan = Plan(memory_format="blocked") if planned else None
        net = Net(lenet(), Scope(backend, pb.TRAIN, rng=np.random.default_rng(1)), plan=plan)
        rng = np.random.default_rng(2)
        net.blob("data").data.plain_overwrite()[...] = rng.random((5, 1, 28, 28))
        net.blob("label").data.plain_overwrite()[...] = rng.integers(0, 10, 5)
        net.clear_param_diffs()
        loss = net.forward()
        net.backward()
        nets.append((net, loss))
    (mine, loss), (cpu, expected) = nets
    assert loss == pytest.approx(expected, rel=1e-5)
    for a, b in zip(mine.params.owned, cpu.params.owned, strict=True):
        np.testing.assert_allclose(a.blob.diff.plain(), b.blob.diff.plain(), 1e-4, 1e-6, err_msg=a.label)
