"""Training on a card: Caffe's weights, captured = uncaptured, plan on = off, and what is told of bad data."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from dtrain.errors import BackendError, DataError
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers.loop import Solver
from tests.gpu.tolerances import PLANNED
from tests.kernels.cuda import test_captured_losses, test_captured_update
from tests.kernels.cuda import test_planned_training as planned
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.test_captured_losses import (
    test_a_wrong_label_in_a_replay_is_noted_and_told_once,
    test_an_eager_pass_tells_of_a_wrong_label_at_once,
    test_replays_give_what_the_cpu_gives,
)
from tests.kernels.cuda.test_captured_update import test_replays_take_the_steps_of_the_cpu
from tests.kernels.cuda.test_planned_training import (
    test_passes_that_add_up_are_captured_each_for_itself,
    test_replayed_iterations_are_bit_for_bit_those_that_run,
    test_what_the_plan_does_is_told,
)
from tests.kernels.cuda.test_replay import (
    test_a_label_that_is_no_class_is_told_behind_a_replay,
    test_replayed_training_is_bit_for_bit_that_of_layers_that_run,
    test_the_weights_that_a_script_changes_between_replays_count,
    test_work_in_which_the_host_takes_part_runs_as_it_is_and_is_told,
    test_work_that_uses_constants_of_the_host_is_captured,
    test_work_that_uses_numbers_of_the_host_which_change_is_not_captured,
)
from tests.kernels.cuda.test_training import (
    check_golden,
    solver_on,
    test_a_snapshot_resumes_bit_for_bit,
    test_lenet_has_the_gradients_of_the_cpu,
)
from tests.solvers import golden

__all__ = [  # tests of the kernels' folder, which here get backends on the card
    "test_a_label_that_is_no_class_is_told_behind_a_replay",
    "test_a_snapshot_resumes_bit_for_bit",
    "test_a_wrong_label_in_a_replay_is_noted_and_told_once",
    "test_an_eager_pass_tells_of_a_wrong_label_at_once",
    "test_lenet_has_the_gradients_of_the_cpu",
    "test_passes_that_add_up_are_captured_each_for_itself",
    "test_replayed_iterations_are_bit_for_bit_those_that_run",
    "test_replayed_training_is_bit_for_bit_that_of_layers_that_run",
    "test_replays_give_what_the_cpu_gives",
    "test_replays_take_the_steps_of_the_cpu",
    "test_the_weights_that_a_script_changes_between_replays_count",
    "test_what_the_plan_does_is_told",
    "test_work_in_which_the_host_takes_part_runs_as_it_is_and_is_told",
    "test_work_that_uses_constants_of_the_host_is_captured",
    "test_work_that_uses_numbers_of_the_host_which_change_is_not_captured",
]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def on_the_card(device: CupyDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that make their device by themselves get the card."""
    for module in (test_captured_losses, test_captured_update):
        monkeypatch.setattr(module, "CpuDevice", lambda: device)


@pytest.mark.parametrize("name", golden.NAMES)
def test_every_solver_has_the_weights_of_caffe(backend: CudaBackend, name: str) -> None:
    check_golden(solver_on(name, backend), name)


@pytest.mark.parametrize("name", golden.NAMES)
def test_every_solver_planned_and_captured_has_the_weights_of_caffe(backend: CudaBackend, name: str) -> None:
    solver = solver_on(name, backend, plan=Plan())
    check_golden(solver, name)
    assert isinstance(solver.net.replayer, GraphReplayer)
    assert solver.net.replayer.num_graphs > 0, "the passes were captured"


def test_a_run_is_the_same_bit_for_bit_twice(make_backend: MakeBackend) -> None:
    ends = []
    for _ in range(2):
        solver = solver_on(golden.NAMES[0], make_backend())
        golden.start_as_caffe(solver, golden.NAMES[0])
        golden.train(solver, 6)
        ends.append([param.blob.data.plain().copy() for param in solver.net.params.owned])
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("with_cudnn", [False, True], ids=["direct kernels", "cuDNN"])
@pytest.mark.parametrize("precision", PLANNED)
@pytest.mark.parametrize("name", planned.PLANNED)
def test_a_planned_net_trains_as_one_without_a_plan(
    make_backend: MakeBackend, name: str, precision: str, with_cudnn: bool
) -> None:
    planned.check_plan(name, lambda: make_backend(precision, with_cudnn=with_cudnn), PLANNED[precision])


def huge() -> pb.NetParameter:
    """More values between layers than any card has room for."""
    param = pb.NetParameter()
    source = param.layer.add(name="in", type="Input", top=["data"])
    source.input_param.shape.add().dim.extend([1, 1_000_000])
    for i in range(30):  # of 7.5 GiB each
        tile = param.layer.add(name=f"tile{i}", type="Tile", bottom=["data"], top=[f"tile{i}"])
        tile.tile_param.axis, tile.tile_param.tiles = 0, 2000
    return param


def test_a_net_that_the_card_has_no_room_for_is_an_error_with_figures(backend: CudaBackend) -> None:
    import cupy

    net = Net(huge(), Scope(backend, pb.TEST))
    net.blob("data").data.plain_overwrite().fill(1)
    with pytest.raises(
        BackendError, match=r"the card must give 7\.45 GiB more, got [\d.]+ GiB free of .* batch_size"
    ):
        net.forward()
    del net
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()  # for other processes on the card
    net = Net(planned.lenet(), Scope(backend, pb.TRAIN))
    net.blob("data").data.plain_overwrite().fill(1)
    net.blob("label").data.plain_overwrite().fill(1)
    assert np.isfinite(net.forward()), "the card is usable behind it"


def test_a_wrong_label_is_told_by_a_planned_captured_run(make_backend: MakeBackend) -> None:
    solver: Solver = planned.solver_of("lenet", make_backend("bf16"), planned=True)
    planned.train(solver)
    planned.feed(solver, 7)
    solver.net.blob("label").data.plain_mutable()[2] = 99
    with pytest.raises(DataError, match=r'layer "loss".*label of sample 2 .*got 99'):
        solver.step(1)
