"""One step of an update rule over the flat buffers, parameter by parameter in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import numpy as np

from dtrain.kernels.update_rule import Place, Slice, UpdateRule

if TYPE_CHECKING:
    from dtrain.kernels.cpu.backend import CpuBackend


@final
class Update:
    """Weights `w`, gradients `g` and the rule's slots, all flat; `l1` decays by the sign of a weight."""

    def __init__(
        self,
        backend: CpuBackend,
        rule: UpdateRule,
        places: Sequence[Place],
        w: Slice,
        g: Slice,
        slots: dict[str, Slice],
        l1: bool,
    ) -> None:
        self._rule = rule
        self._places = places
        self._w, self._g, self._slots = w, g, slots
        self._l1 = l1

    def sum_of_squares(self) -> float:
        """Of all gradients."""
        parts = (self._g[place.start : place.stop] for place in self._places)
        return float(sum(np.square(part, dtype=np.float64).sum() for part in parts))

    def step(self, lr: float, scale: float, it: int) -> None:
        """w follows scale * g + decay * w (or its sign) at the rate lr * lr_mult; g stays as it is."""
        for place in self._places:
            part = slice(place.start, place.stop)
            w = self._w[part]
            gradient = scale * self._g[part]
            if place.decay:
                gradient += place.decay * (np.sign(w) if self._l1 else w)
            slot = {name: values[part] for name, values in self._slots.items()}
            self._rule.update(w, gradient, slot, lr * place.lr_mult, it)
