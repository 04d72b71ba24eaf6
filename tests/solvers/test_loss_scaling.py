"""Training in 16 bits: scaled losses, steps that overflow, and what a snapshot keeps of the scale.

The kernels of a card run on the CPU.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from dtrain.comm.single import SingleCommunicator
from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.metrics.recorder import Recorder
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.loop import Solver
from dtrain.solvers.loss_scaling import LOOK_EVERY, MOST_IN_A_ROW
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings
from tests.kernels.cuda.cpu_device import CpuDevice

SOLVER = """
base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" max_iter: 1000 random_seed: 1
snapshot_prefix: "%s"
net_param {
  name: "small" %s
  layer { name: "in" type: "Input" top: "data" top: "label"
    input_param { shape { dim: 8 dim: 6 } shape { dim: 8 } } }
  layer { name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
    inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
  layer { name: "tanh" type: "TanH" bottom: "hidden" top: "hidden" }
  layer { name: "score" type: "InnerProduct" bottom: "hidden" top: "score"
    inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
}
"""


def solver(
    precision: str,
    net: str = "",
    *,
    planned: bool = True,
    prefix: Path | str = "",
    record: Recorder | None = None,
) -> Solver:
    param = pb.SolverParameter()
    text.parse(SOLVER % (prefix, net), param)
    backend, group = CudaBackend(CpuDevice(), precision=precision), SingleCommunicator()
    settings = Settings(param, None)
    made = build_train_net(settings, backend, group, 1, Plan() if planned else None)
    return Solver(param, made, (), group, recorder=record)


def train(one: Solver, until: int, *, poison: range = range(0)) -> None:
    """Data are a function of the iteration; in those of `poison` they overflow float16 on the way back."""
    while one.iter < until:
        rng = np.random.default_rng(one.iter)
        data = rng.standard_normal((8, 6)).astype(np.float32)
        one.net.blob("data").data.plain_overwrite()[...] = np.inf if one.iter in poison else data
        one.net.blob("label").data.plain_overwrite()[...] = rng.integers(0, 3, 8)
        one.step(1)


def weights(one: Solver) -> list[np.ndarray]:
    return [param.blob.data.plain().copy() for param in one.net.params.owned]


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 4e-3), ("fp16", 1e-3), ("tf32", 1e-5)])
def test_weights_follow_those_of_float32(precision: str, tolerance: float) -> None:
    exact, rounded = solver("fp32", planned=False), solver(precision)
    start = weights(exact)
    for mine, theirs in zip(rounded.net.params.owned, start, strict=True):
        np.testing.assert_array_equal(mine.blob.data.plain(), theirs)
    for one in (exact, rounded):
        train(one, 12)
    for mine, theirs in zip(weights(rounded), weights(exact), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=tolerance)
    assert any(abs(a - b).max() > 10 * tolerance for a, b in zip(start, weights(exact), strict=True))


@pytest.mark.parametrize("planned", [False, True], ids=["layer by layer", "replayed"])
def test_a_step_that_overflows_changes_nothing_and_halves_the_scale(planned: bool) -> None:
    recorder = Recorder()
    one = solver("fp16", planned=planned, record=recorder)
    train(one, 6)
    before, state = weights(one), one._scaled.op.state()
    train(one, 8, poison=range(6, 8))
    for mine, theirs in zip(weights(one), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    now = one._scaled.op.state()
    assert (now.scale, now.skipped, now.in_a_row) == (state.scale / 4, state.skipped + 2, 2)
    counted = {family.name: family.points[0].value for family in recorder.read()}
    assert counted["skipped_steps_total"] == now.skipped
    assert counted["loss_scale"] == now.scale
    train(one, 12)
    assert one._scaled.op.state().in_a_row == 0
    assert any((a != b).any() for a, b in zip(weights(one), before, strict=True))


def test_too_many_skipped_steps_in_a_row_end_the_run_and_name_the_layer() -> None:
    one = solver("fp16")
    with pytest.raises(BackendError, match=r"steps in a row .* begins in the gradient of score\[0\]"):
        train(one, 100, poison=range(100))
    assert MOST_IN_A_ROW <= one.iter < MOST_IN_A_ROW + LOOK_EVERY


def test_a_snapshot_takes_the_scale_along(tmp_path: Path) -> None:
    first = solver("fp16", prefix=tmp_path / "net")
    train(first, 4, poison=range(2))
    first.snapshot(wait=True)
    second = solver("fp16", prefix=tmp_path / "net")
    second.restore(tmp_path / "net_iter_4.solverstate")
    assert second._scaled.op.state() == first._scaled.op.state()
    for one in (first, second):
        train(one, 9)
    for mine, theirs in zip(weights(first), weights(second), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_nets_own_scale_counts(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        one = solver(
            "", "default_forward_type: FLOAT16 default_backward_type: FLOAT16 global_grad_scale: 1000"
        )
    assert one._scaled.op.state().scale == 1000
    assert "Loss scale: 1000, the same for all steps" in caplog.messages


def test_float32_and_bfloat16_need_no_scale() -> None:
    assert solver("fp32", "global_grad_scale: 1000")._scaled.op is None
    assert solver("bf16")._scaled.op is None


def test_a_scale_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="global_grad_scale must be more than 0, got 0"):
        solver("fp16", "global_grad_scale: 0")
