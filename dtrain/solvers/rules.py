"""Update rules: how a weight w follows its gradient g at the rate lr, in iteration it (from 0).

Source: the solvers of BVLC Caffe 1.0. A rule's slots are Caffe's history, in its order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from dtrain.errors import ConfigError, unknown_name
from dtrain.kernels.update_rule import Slice, UpdateRule
from dtrain.solvers.settings import Settings

Slots = dict[str, Slice]


@final
@dataclass(frozen=True, kw_only=True)
class SGD(UpdateRule):
    """h <- momentum * h + lr * g;  w <- w - h."""

    momentum: float
    name = "SGD"
    slots = ("history",)

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        h = slot["history"]
        h *= self.momentum
        h += lr * g
        w -= h

    def scalars(self, it: int) -> tuple[float, ...]:
        return (self.momentum,)


@final
@dataclass(frozen=True, kw_only=True)
class Nesterov(UpdateRule):
    """h' <- momentum * h + lr * g;  w <- w - (1 + momentum) * h' + momentum * h."""

    momentum: float
    name = "Nesterov"
    slots = ("history",)

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        h = slot["history"]
        w += self.momentum * h
        h *= self.momentum
        h += lr * g
        w -= (1 + self.momentum) * h

    def scalars(self, it: int) -> tuple[float, ...]:
        return (self.momentum,)


@final
@dataclass(frozen=True, kw_only=True)
class AdaGrad(UpdateRule):
    """s <- s + g^2;  w <- w - lr * g / (sqrt(s) + delta)."""

    delta: float
    name = "AdaGrad"
    slots = ("squares",)

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        s = slot["squares"]
        s += g * g
        w -= lr * g / (np.sqrt(s) + self.delta)

    def scalars(self, it: int) -> tuple[float, ...]:
        return (self.delta,)


@final
@dataclass(frozen=True, kw_only=True)
class RMSProp(UpdateRule):
    """s <- rms_decay * s + (1 - rms_decay) * g^2;  w <- w - lr * g / (sqrt(s) + delta)."""

    rms_decay: float
    delta: float
    name = "RMSProp"
    slots = ("squares",)

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        s = slot["squares"]
        s *= self.rms_decay
        s += (1 - self.rms_decay) * (g * g)
        w -= lr * g / (np.sqrt(s) + self.delta)

    def scalars(self, it: int) -> tuple[float, ...]:
        return self.rms_decay, 1 - self.rms_decay, self.delta


@final
@dataclass(frozen=True, kw_only=True)
class AdaDelta(UpdateRule):
    """s <- m s + (1 - m) g^2; u = g sqrt((t + delta) / (s + delta)); t <- m t + (1 - m) u^2; w <- w - lr u.

    m is momentum.
    """

    momentum: float
    delta: float
    name = "AdaDelta"
    slots = ("squares", "update_squares")

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        s, t = slot["squares"], slot["update_squares"]
        s *= self.momentum
        s += (1 - self.momentum) * (g * g)
        g *= np.sqrt((t + self.delta) / (s + self.delta))
        t *= self.momentum
        t += (1 - self.momentum) * (g * g)
        w -= lr * g

    def scalars(self, it: int) -> tuple[float, ...]:
        return self.momentum, 1 - self.momentum, self.delta


@final
@dataclass(frozen=True, kw_only=True)
class Adam(UpdateRule):
    """m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2;  w <- w - lr c m / (sqrt(v) + delta).

    b1 is momentum, b2 momentum2, and c = sqrt(1 - b2^t) / (1 - b1^t) with t = it + 1.
    """

    momentum: float
    momentum2: float
    delta: float
    name = "Adam"
    slots = ("mean", "squares")

    def correction(self, it: int) -> float:
        """c: makes up for means that start at zero."""
        return float(np.sqrt(1 - self.momentum2 ** (it + 1)) / (1 - self.momentum ** (it + 1)))

    def update(self, w: Slice, g: Slice, slot: Slots, lr: float, it: int) -> None:
        m, v = slot["mean"], slot["squares"]
        m *= self.momentum
        m += (1 - self.momentum) * g
        v *= self.momentum2
        v += (1 - self.momentum2) * (g * g)
        w -= lr * self.correction(it) * m / (np.sqrt(v) + self.delta)

    def scalars(self, it: int) -> tuple[float, ...]:
        m, v = self.momentum, self.momentum2
        return m, 1 - m, v, 1 - v, self.delta, self.correction(it)


TYPES: Final = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


def rule_of(settings: Settings) -> UpdateRule:
    """The rule that the solver's `type` names. Raises ConfigError for constants that it does not take."""
    p = settings.param
    match p.type:
        case "SGD":
            return SGD(momentum=p.momentum)
        case "Nesterov":
            return Nesterov(momentum=p.momentum)
        case "AdaGrad":
            _check_no_momentum(settings)
            return AdaGrad(delta=_delta(settings))
        case "RMSProp":
            _check_no_momentum(settings)
            _check_fraction(settings, "rms_decay", p.rms_decay)
            return RMSProp(rms_decay=p.rms_decay, delta=_delta(settings))
        case "AdaDelta":
            _check_fraction(settings, "momentum", p.momentum)
            return AdaDelta(momentum=p.momentum, delta=_delta(settings))
        case "Adam":
            _check_fraction(settings, "momentum", p.momentum)
            _check_fraction(settings, "momentum2", p.momentum2)
            return Adam(momentum=p.momentum, momentum2=p.momentum2, delta=_delta(settings))
    raise ConfigError(f"{settings.where('type')}: {unknown_name('solver type', p.type, TYPES)}")


def _check_no_momentum(settings: Settings) -> None:
    if settings.param.momentum:
        raise settings.bad("momentum", f"0 for type {settings.param.type}", settings.param.momentum)


def _check_fraction(settings: Settings, field: str, value: float) -> None:
    if not 0 <= value < 1:
        raise settings.bad(field, f"in [0, 1) for type {settings.param.type}", value)


def _delta(settings: Settings) -> float:
    """A zero delta divides 0 by 0 wherever a gradient has always been zero."""
    if not settings.param.delta > 0:
        raise settings.bad("delta", f"positive for type {settings.param.type}", settings.param.delta)
    return settings.param.delta
