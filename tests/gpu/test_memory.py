"""What a card's memory holds does not grow while a net trains, nor as its shapes change."""

from __future__ import annotations

import gc

import pytest

from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.replay import MOST_GRAPHS, GraphReplayer
from dtrain.solvers.loop import Solver
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.test_planned_training import feed, solver_of

pytestmark = pytest.mark.gpu

SLACK_BYTES = 8 << 20  # what the driver keeps for graphs comes in pieces
CAPTURED_BY = 3  # as it is, followed, captured


def held(device: CupyDevice) -> tuple[int, int]:
    """Bytes of living arrays; and of the card, by the driver, less what the pool keeps for others."""
    import cupy

    gc.collect()
    device.synchronize()
    free, total = cupy.cuda.runtime.memGetInfo()
    return device.memory_used(), total - free


def run(solver: Solver, iterations: int) -> None:
    for it in range(iterations):
        feed(solver, it % 5)
        solver.step(1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_thousand_captured_iterations_take_no_more_memory(
    device: CupyDevice, make_backend: MakeBackend, request: pytest.FixtureRequest, precision: str
) -> None:
    iterations = 1000 if not request.config.getoption("--stand-in", default=False) else 10
    solver = solver_of("lenet", make_backend(precision), planned=True)
    run(solver, 20)
    assert isinstance(solver.net.replayer, GraphReplayer)
    assert solver.net.replayer.num_graphs == 2
    arrays, card = held(device)
    run(solver, iterations)
    arrays_after, card_after = held(device)
    assert arrays_after <= arrays
    assert card_after <= card + SLACK_BYTES


def test_fifty_captures_of_other_shapes_take_no_more_memory(
    device: CupyDevice, make_backend: MakeBackend
) -> None:
    solver = solver_of("lenet", make_backend("fp32"), planned=True)
    solver.param.base_lr = 1e-4  # each shape has labels of its own for the same images: fast steps diverge
    replayer = solver.net.replayer
    assert isinstance(replayer, GraphReplayer)

    def capture(turn: int) -> None:
        batch = 3 + turn % 4
        solver.net.blob("data").reshape((batch, 1, 28, 28))
        solver.net.blob("label").reshape((batch,))
        solver.net.reshape()
        run(solver, CAPTURED_BY + 1)

    for turn in range(4 * MOST_GRAPHS):
        capture(turn)
    arrays, card = held(device)
    for turn in range(52):  # ends with the shape that was the last before
        capture(turn)
    assert replayer.num_graphs > 1
    arrays_after, card_after = held(device)
    assert arrays_after <= arrays
    assert card_after <= card + SLACK_BYTES
