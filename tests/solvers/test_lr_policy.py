"""Learning rates are functions of the iteration."""

from __future__ import annotations

import math

import pytest

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.lr_policy import LearningRate
from dtrain.solvers.settings import Settings


def rate(settings: str) -> LearningRate:
    param = pb.SolverParameter()
    return LearningRate(Settings(param, text.parse(settings, param, "solver.prototxt")))


@pytest.mark.parametrize(
    ("settings", "it", "expected"),
    [
        ('lr_policy: "fixed"', 1000, 2.0),
        ('lr_policy: "step" gamma: 0.5 stepsize: 4', 3, 2.0),
        ('lr_policy: "step" gamma: 0.5 stepsize: 4', 8, 0.5),
        ('lr_policy: "exp" gamma: 0.5', 3, 0.25),
        ('lr_policy: "inv" gamma: 1 power: 2', 1, 0.5),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 5', 2, 2.0),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 5', 3, 1.0),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 5', 9, 0.5),
        ('lr_policy: "poly" power: 2 max_iter: 10', 5, 0.5),
        ('lr_policy: "poly" power: 0.5 max_iter: 10', 12, 0.0),
        ('lr_policy: "poly" power: 1 max_iter: 10 min_lr: 1', 5, 1.5),
        ('lr_policy: "sigmoid" gamma: -2 stepsize: 5', 5, 1.0),
        ('lr_policy: "sigmoid" gamma: 1 stepsize: 5', 7, 2 / (1 + math.exp(-2))),
        ('lr_policy: "sigmoid" gamma: -1000 stepsize: 5', 7, 0.0),
        ('lr_policy: "cosine" max_iter: 10 min_lr: 1', 0, 2.0),
        ('lr_policy: "cosine" max_iter: 10 min_lr: 1', 5, 1.5),
        ('lr_policy: "cosine" max_iter: 10 min_lr: 1', 11, 1.0),
        ('lr_policy: "multifixed" stagelr: 3 stageiter: 5 stagelr: 4 stageiter: 7', 5, 3.0),
        ('lr_policy: "multifixed" stagelr: 3 stageiter: 5 stagelr: 4 stageiter: 7', 6, 4.0),
        ('lr_policy: "multifixed" stagelr: 3 stageiter: 5 stagelr: 4 stageiter: 7', 8, 4.0),
        ('lr_policy: "fixed" rampup_interval: 4 rampup_lr: 1', 0, 1.0),
        ('lr_policy: "fixed" rampup_interval: 4 rampup_lr: 1', 2, 1.25),
        ('lr_policy: "fixed" rampup_interval: 4 rampup_lr: 1', 4, 2.0),
        ('lr_policy: "fixed" warmup_iter: 4 warmup_start_lr: 1', 2, 1.5),
        ('lr_policy: "exp" gamma: 0.5 warmup_iter: 2', 2, 0.5),
    ],
)
def test_policy_has_its_published_rate(settings: str, it: int, expected: float) -> None:
    assert rate(f"base_lr: 2 {settings}").at(it) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('base_lr: 1\nlr_policy: "stp"', r':2: unknown lr_policy "stp"; did you mean "step"\?'),
        ('base_lr: 1 lr_policy: "step"', r"stepsize must be at least 1"),
        ('lr_policy: "fixed"', "base_lr must be given, got none"),
        ('base_lr: 1 lr_policy: "poly"', "max_iter must be at least 1"),
        ('base_lr: 1 lr_policy: "multistep" stepvalue: 5 stepvalue: 3', "stepvalue must be given in rising"),
        ('lr_policy: "multifixed" stagelr: 1', "stagelr must be given as often as stageiter"),
        ('lr_policy: "multifixed"', "stagelr must be given"),
        ('base_lr: 1 lr_policy: "fixed" rampup_interval: 2 warmup_iter: 2', "both are a warm-up"),
    ],
)
def test_settings_that_give_no_rate_are_refused_with_file_and_line(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        rate(settings)
    assert str(caught.value).startswith("solver.prototxt")


def test_steps_done_are_those_of_the_last_iteration_as_in_the_solver_states_of_caffe() -> None:
    step = rate('base_lr: 1 lr_policy: "step" gamma: 0.5 stepsize: 4')
    assert [step.steps_done(it) for it in (0, 4, 5, 8, 9)] == [0, 0, 1, 1, 2]
    multistep = rate('base_lr: 1 lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 5')
    assert [multistep.steps_done(it) for it in (0, 3, 4, 5, 6)] == [0, 0, 1, 1, 2]
    assert rate('base_lr: 1 lr_policy: "fixed"').steps_done(9) == 0
