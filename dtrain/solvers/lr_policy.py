"""Learning rates: each policy is a pure function of the iteration.

Source: GetLearningRate of BVLC Caffe 1.0; `rampup_*`, `min_lr` of NVCaffe 0.17; `warmup_*`, "multifixed" of
Intel Caffe 1.1; "cosine" of Loshchilov and Hutter, SGDR, 2017, without restarts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, TypeAlias, final

from dtrain.errors import ConfigError, unknown_name
from dtrain.proto import dtrain_pb2 as pb
from dtrain.solvers.settings import Settings

Policy: TypeAlias = Callable[[pb.SolverParameter, int], float]


def fixed(p: pb.SolverParameter, it: int) -> float:
    """base_lr."""
    return p.base_lr


def step(p: pb.SolverParameter, it: int) -> float:
    """base_lr * gamma ^ floor(it / stepsize)."""
    return float(p.base_lr * p.gamma ** (it // p.stepsize))


def exp(p: pb.SolverParameter, it: int) -> float:
    """base_lr * gamma ^ it."""
    return float(p.base_lr * p.gamma**it)


def inv(p: pb.SolverParameter, it: int) -> float:
    """base_lr * (1 + gamma * it) ^ -power."""
    return float(p.base_lr * (1 + p.gamma * it) ** -p.power)


def multistep(p: pb.SolverParameter, it: int) -> float:
    """base_lr * gamma ^ (how many stepvalues are at or below it)."""
    return float(p.base_lr * p.gamma ** sum(it >= value for value in p.stepvalue))


def poly(p: pb.SolverParameter, it: int) -> float:
    """min_lr + (base_lr - min_lr) * (1 - it / max_iter) ^ power; min_lr is 0 unless given."""
    return float(p.min_lr + (p.base_lr - p.min_lr) * max(0.0, 1 - it / p.max_iter) ** p.power)


def sigmoid(p: pb.SolverParameter, it: int) -> float:
    """base_lr / (1 + e ^ (-gamma * (it - stepsize)))."""
    exponent = -p.gamma * (it - p.stepsize)
    return p.base_lr / (1 + math.exp(exponent)) if exponent < 700 else 0.0  # e ^ 710 overflows


def cosine(p: pb.SolverParameter, it: int) -> float:
    """min_lr + (base_lr - min_lr) * (1 + cos(pi * it / max_iter)) / 2."""
    return p.min_lr + (p.base_lr - p.min_lr) * (1 + math.cos(math.pi * min(1.0, it / p.max_iter))) / 2


def multifixed(p: pb.SolverParameter, it: int) -> float:
    """stagelr of the first stage whose stageiter is at or above it; the last one stays."""
    ahead = sum(it > end for end in p.stageiter)
    return p.stagelr[min(ahead, len(p.stagelr) - 1)]


POLICIES: Final[dict[str, Policy]] = {
    policy.__name__: policy
    for policy in (fixed, step, exp, inv, multistep, poly, sigmoid, cosine, multifixed)
}
NEEDS_MAX_ITER: Final = ("poly", "cosine")


@final
class LearningRate:
    """The solver's policy with its warm-up. Raises ConfigError for settings that give no rate."""

    def __init__(self, settings: Settings) -> None:
        self._param = p = settings.param
        if p.lr_policy not in POLICIES:
            raise ConfigError(
                f"{settings.where('lr_policy')}: {unknown_name('lr_policy', p.lr_policy, POLICIES)}"
            )
        self._policy = POLICIES[p.lr_policy]
        if not p.HasField("base_lr") and p.lr_policy != "multifixed":
            raise settings.bad("base_lr", "given", "none")
        if p.lr_policy == "step" and p.stepsize < 1:
            raise settings.bad("stepsize", 'at least 1 for lr_policy "step"', p.stepsize)
        if p.lr_policy in NEEDS_MAX_ITER and p.max_iter < 1:
            raise settings.bad("max_iter", f'at least 1 for lr_policy "{p.lr_policy}"', p.max_iter)
        if list(p.stepvalue) != sorted(p.stepvalue):
            raise settings.bad("stepvalue", "given in rising order", list(p.stepvalue))
        if len(p.stagelr) != len(p.stageiter):
            raise settings.bad(
                "stagelr",
                f"given as often as stageiter ({len(p.stageiter)} times)",
                f"{len(p.stagelr)} times",
            )
        if p.lr_policy == "multifixed" and not p.stagelr:
            raise settings.bad("stagelr", 'given for lr_policy "multifixed"', "none")
        if p.rampup_interval > 0 and p.warmup_iter > 0:
            raise settings.bad(
                "rampup_interval", "0 where warmup_iter is given", p.rampup_interval, "both are a warm-up"
            )

    def at(self, it: int) -> float:
        """The rate of iteration `it`."""
        p = self._param
        if it < p.rampup_interval:
            return p.rampup_lr + (p.base_lr - p.rampup_lr) * (it / p.rampup_interval) ** 2
        if it < p.warmup_iter:
            return p.warmup_start_lr + (p.base_lr - p.warmup_start_lr) * it / p.warmup_iter
        return self._policy(p, it)

    def steps_done(self, it: int) -> int:
        """Caffe's current_step after `it` iterations, which a solver state holds."""
        last, p = it - 1, self._param
        if last < 0:
            return 0
        if p.lr_policy == "step":
            return last // p.stepsize
        return sum(last >= value for value in p.stepvalue) if p.lr_policy == "multistep" else 0
