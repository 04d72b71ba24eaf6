"""One step of an update rule over the flat buffers, parameter by parameter in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np

from dtrain.kernels.cpu.gradient_norm import GradientNorm
from dtrain.kernels.cpu.loss_scale import LossScale
from dtrain.kernels.update_rule import Place, Slice, UpdateRule

if TYPE_CHECKING:
    from dtrain.kernels.cpu.backend import CpuBackend


@final
class Update:
    """Weights `w`, gradients `g` and the rule's slots, all flat; `l1` decays by the sign of a weight.

    Where the norm of the gradients is more than `clip`, they are scaled down to it. With a `loss_scale` they
    are divided by it, and a step is skipped whose gradients are not all numbers.
    """

    def __init__(
        self,
        backend: CpuBackend,
        rule: UpdateRule,
        places: Sequence[Place],
        w: Slice,
        g: Slice,
        slots: dict[str, Slice],
        l1: bool,
        clip: float | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        self._rule = rule
        self._places = places
        self._w, self._g, self._slots = w, g, slots
        self._l1 = l1
        self._norm = GradientNorm(clip, loss_scale)
        self._it, self._lr, self._ranks, self._passes = 0, 0.0, 1, 1

    def _sum_of_squares(self) -> float:
        parts = (self._g[place.start : place.stop] for place in self._places)
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts))

    def set(self, it: int, lr: float, ranks: int, passes: int) -> None:
        """For the steps that follow: iteration, rate, and that gradients are sums over ranks x passes."""
        self._it, self._lr, self._ranks, self._passes = it, lr, ranks, passes

    def step(self) -> None:
        """w follows mean g + decay * w (or its sign) at the rate lr * lr_mult; g stays as it is."""
        factor = self._norm.factor(self._sum_of_squares, self._ranks)
        if factor is None:
            return
        scale = factor / (self._passes * self._ranks)
        for place in self._places:
            part = slice(place.start, place.stop)
            w = self._w[part]
            gradient = scale * self._g[part]
            if place.decay:
                gradient += place.decay * (np.sign(w) if self._l1 else w)
            slot = {name: values[part] for name, values in self._slots.items()}
            self._rule.update(w, gradient, slot, self._lr * place.lr_mult, self._it)

    def gradient_norm(self) -> float:
        """L2, of the last step, mean over the ranks, without the loss scale; NaN where it is not needed."""
        return self._norm.value
