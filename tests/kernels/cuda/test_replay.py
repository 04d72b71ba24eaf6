"""Work that is captured and replayed leaves what running it leaves, and what cannot be captured is told."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from dtrain.errors import DataError
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.replay import GraphReplayer
from dtrain.solvers.loop import Solver
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.test_training import solver_on
from tests.solvers import golden


def replaying(name: str, backend: CudaBackend) -> Solver:
    """The golden configuration's solver with its passes replayed."""
    solver = solver_on(name, backend)
    solver.net.replayer = solver.net.scope.backend.replayer()
    return solver


@pytest.mark.parametrize("name", golden.NAMES)
def test_replayed_training_is_bit_for_bit_that_of_layers_that_run(
    make_backend: MakeBackend, name: str
) -> None:
    eager, replayed = solver_on(name, make_backend()), replaying(name, make_backend())
    ends = []
    for solver in (eager, replayed):
        golden.start_as_caffe(solver, name)
        golden.train(solver, 8)
        ends.append([param.blob.data.plain().copy() for param in solver.net.params.owned])
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, other)
    replayer = replayed.net.replayer
    assert isinstance(replayer, GraphReplayer)
    assert replayer.num_graphs > 0, "the passes were captured"


def test_the_weights_that_a_script_changes_between_replays_count(make_backend: MakeBackend) -> None:
    name = golden.NAMES[0]
    ends = []
    for solver in (solver_on(name, make_backend()), replaying(name, make_backend())):
        golden.start_as_caffe(solver, name)
        golden.train(solver, 5)
        for param in solver.net.params.owned:
            param.blob.data.plain_mutable()[...] *= 0.5
        golden.train(solver, 8)
        ends.append([param.blob.data.plain().copy() for param in solver.net.params.owned])
    for mine, other in zip(*ends, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_label_that_is_no_class_is_told_behind_a_replay(make_backend: MakeBackend) -> None:
    name = golden.NAMES[0]
    solver = replaying(name, make_backend())
    golden.start_as_caffe(solver, name)
    golden.train(solver, 6)
    golden.feed(solver)
    solver.net.blob("label").data.plain_mutable()[2] = 99
    with pytest.raises(DataError, match=r'layer "loss".*label of sample 2 .*got 99'):
        solver.step(1)


def test_work_in_which_the_host_takes_part_runs_as_it_is_and_is_told(
    make_backend: MakeBackend,
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = make_backend()
    replayer = backend.replayer()
    x, y = backend.array((2,)), backend.array((2,))
    power = backend.operators("DEFAULT").Power(1.0, 2.0, 0.0, x, y)

    def work() -> None:
        replayer.place('layer "reads"')
        power.forward(x, y)
        y.plain()

    with caplog.at_level(logging.INFO):
        for number in range(5):
            x.plain_overwrite()[...] = number
            replayer.run(("work",), work, lambda: None)
            assert y.plain().tolist() == [2 * number, 2 * number]
    assert replayer.num_graphs == 0
    (told,) = [record.message for record in caplog.records]
    assert told == (
        'plan: work runs without a CUDA graph, since layer "reads" reads what the device has computed'
    )


def test_work_that_uses_numbers_of_the_host_which_change_is_not_captured(
    make_backend: MakeBackend,
) -> None:
    backend = make_backend()
    replayer = backend.replayer()
    x, y, label = (backend.array((1,)) for _ in range(3))

    def work() -> None:
        factor = float(label.plain()[0])
        backend.operators("DEFAULT").Power(1.0, factor, 0.0, x, y).forward(x, y)

    for number in range(8):
        x.plain_overwrite()[...] = 3
        label.plain_overwrite()[...] = number
        replayer.run(("work",), work, lambda: None)
        assert y.plain().tolist() == [3 * number]
    assert replayer.num_graphs == 0


def test_work_that_uses_constants_of_the_host_is_captured(make_backend: MakeBackend) -> None:
    backend = make_backend()
    replayer = backend.replayer()
    x, y, weight = (backend.array((1,)) for _ in range(3))
    weight.plain_overwrite()[...] = 2

    def work() -> None:
        factor = float(weight.plain()[0])
        backend.operators("DEFAULT").Power(1.0, factor, 0.0, x, y).forward(x, y)

    for number in range(8):
        if number == 5:
            weight.plain_overwrite()[...] = 7
        x.plain_overwrite()[...] = number
        replayer.run(("work",), work, lambda: None)
        assert y.plain().tolist() == [number * (2 if number < 5 else 7)]
    assert replayer.num_graphs == 1
