"""Plan on = plan off on a card, in every precision: fused, channels last, memory shared, replayed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net
from dtrain.solvers.settings import Settings
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.test_training import lenet

NETS = Path(__file__).parents[2] / "nets"
PLANNED = ["lenet", "residual_block", "inception_block"]
ITERATIONS = 6
# Weights after that many steps of about 0.01 in all: 16-bit values are rounded once more or less where layers
# are fused.
TOLERANCE = {"fp32": 2e-6, "tf32": 2e-6, "bf16": 3e-3, "fp16": 5e-4}


def description(name: str) -> pb.NetParameter:
    if name == "lenet":
        return lenet()
    return read_net(NETS / f"{name}.prototxt")[0]


def solver_of(name: str, backend: CudaBackend, *, planned: bool, iter_size: int = 1) -> Solver:
    """A net's solver; its Input blobs are to be filled."""
    param = pb.SolverParameter(
        base_lr=0.01,
        momentum=0.9,
        weight_decay=1e-3,
        lr_policy="fixed",
        max_iter=100,
        iter_size=iter_size,
        random_seed=1,
    )
    param.net_param.CopyFrom(description(name))
    settings, group = Settings(param, None), SingleCommunicator()
    net = build_train_net(settings, backend, group, 1, Plan() if planned else None)
    return Solver(param, net, (), group)


def feed(solver: Solver, seed: int) -> None:
    """Fill the Input blobs."""
    data, label = solver.net.blob("data").data, solver.net.blob("label").data
    rng = np.random.default_rng(seed)
    data.plain_overwrite()[...] = rng.random(data.shape)
    label.plain_overwrite()[...] = rng.integers(0, 10, label.shape)


def train(solver: Solver) -> list[NDArray[np.float32]]:
    """All parameters after some iterations on data that are a function of the iteration."""
    for it in range(ITERATIONS):
        feed(solver, it)
        solver.step(1)
    return [owned.blob.data.plain().copy() for owned in solver.net.params.owned]


def check_plan(name: str, make: Callable[[], CudaBackend], atol: float) -> CudaBackend:
    """Plan on = plan off; the backend of the planned net."""
    plain, planned = (solver_of(name, make(), planned=plan) for plan in (False, True))
    expected, got = train(plain), train(planned)
    for owned, mine, theirs in zip(planned.net.params.owned, got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-3, atol, err_msg=owned.label)
    assert plain.net.replayer is None
    assert isinstance(planned.net.replayer, GraphReplayer)
    assert planned.net.replayer.num_graphs == 2, "forward with backward, and the update"
    backend = planned.net.scope.backend
    assert isinstance(backend, CudaBackend)
    return backend


@pytest.mark.parametrize("with_cudnn", [False, True], ids=["direct kernels", "cuDNN"])
@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", PLANNED)
def test_a_planned_net_trains_as_one_without_a_plan(
    make_backend: MakeBackend, name: str, precision: str, with_cudnn: bool
) -> None:
    backend = check_plan(name, lambda: make_backend(precision, with_cudnn=with_cudnn), TOLERANCE[precision])
    wanted = "channels_last" if with_cudnn and precision != "fp32" else "blocked"
    assert backend.memory_format == wanted


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("name", PLANNED)
def test_replayed_iterations_are_bit_for_bit_those_that_run(
    make_backend: MakeBackend, name: str, precision: str
) -> None:
    replayed, eager = (solver_of(name, make_backend(precision), planned=True) for _ in range(2))
    eager.net.replayer = None
    for mine, theirs in zip(train(replayed), train(eager), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_passes_that_add_up_are_captured_each_for_itself(make_backend: MakeBackend) -> None:
    plain, planned = (
        solver_of("lenet", make_backend("fp32"), planned=plan, iter_size=3) for plan in (False, True)
    )
    expected, got = train(plain), train(planned)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-4, 2e-6)
    assert isinstance(planned.net.replayer, GraphReplayer)
    assert planned.net.replayer.num_graphs == 4, "first, middle and last pass, and the update"


def test_what_the_plan_does_is_told(make_backend: MakeBackend, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        train(solver_of("residual_block", make_backend("bf16"), planned=True))
    told = "\n".join(caplog.messages)
    assert "plan: 1 ReLU and 2 Scale layers fused into the layer before" in told
    assert re.search(r"plan: \d+ diffs between layers share memory", told)
    assert "runs without a CUDA graph" not in told


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_planned_test_net_has_the_scores_of_one_without_a_plan(
    make_backend: MakeBackend, precision: str
) -> None:
    scores = []
    for planned in (False, True):
        param = pb.SolverParameter(base_lr=0.01, lr_policy="fixed", random_seed=1, test_interval=100)
        param.test_iter.append(5)
        param.net_param.CopyFrom(lenet_with_accuracy())
        settings, group = Settings(param, None), SingleCommunicator()
        backend = make_backend(precision)
        plan = Plan() if planned else None
        net = build_train_net(settings, backend, group, 1, plan)
        tests = build_test_nets(settings, backend, group, 1, net, plan)
        solver = Solver(param, net, tests, group)
        (tester,) = solver._testers
        told = [tester.run(0, True) for _ in range(2)]
        scores.append(
            [value for score in told if score for value in (score.loss, *(o.value for o in score.outputs))]
        )
    assert scores[0] == pytest.approx(scores[1], rel=0 if precision == "fp32" else 1e-2)
    assert isinstance(tests[0].replayer, GraphReplayer)
    assert tests[0].replayer.num_graphs == 1


def lenet_with_accuracy() -> pb.NetParameter:
    """LeNet on random images, each pass with others, and its accuracy."""
    param = pb.NetParameter()
    param.CopyFrom(lenet())
    source = param.layer[0]
    source.type = "DummyData"
    for shape in source.input_param.shape:
        source.dummy_data_param.shape.add().CopyFrom(shape)
    source.dummy_data_param.data_filler.add(type="uniform", min=0, max=1)
    source.dummy_data_param.data_filler.add(type="constant", value=3)
    source.ClearField("input_param")
    param.layer.add(name="accuracy", type="Accuracy", bottom=["ip2", "label"], top=["accuracy"])
    return param
