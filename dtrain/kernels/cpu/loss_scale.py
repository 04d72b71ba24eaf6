"""The factor of all gradients on their way back: x <- scale x."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.loss_scaling import LossScaling, ScaleState


@final
class LossScale:
    """Applied to gradients where they begin; an Update that has it divides by it and moves it on."""

    def __init__(self, backend: Backend, scaling: LossScaling) -> None:
        self.scaling = scaling
        self._state = scaling.start()
        self.implementation = "numpy"

    def apply(self, diff: SyncedArray) -> None:
        """Multiply a diff by the scale."""
        values = diff.plain_mutable()
        values *= self._state.scale

    def state(self) -> ScaleState:
        """As the last step has left it."""
        return self._state

    def restore(self, state: ScaleState) -> None:
        """Go on from a state."""
        self._state = state
