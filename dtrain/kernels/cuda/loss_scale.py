"""The factor of all gradients on their way back: x <- scale x, kept and moved on by the device."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import own, update
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.loss_scaling import LossScaling, ScaleState


@final
class LossScale:
    """Applied to gradients where they begin; an Update that has it divides by it and moves it on.

    `buffer` holds the numbers of a ScaleState.
    """

    def __init__(self, backend: CudaBackend, scaling: LossScaling) -> None:
        self._backend = backend
        self.scaling = scaling
        self.buffer = backend.constants(scaling.start(), np.float64)
        self.implementation = "cuda"

    def apply(self, diff: SyncedArray) -> None:
        """Multiply a diff by the scale, in the form that it was written in."""
        array = own(diff)
        form = array.form if array.form in array.storage.valid else array.storage.base
        kernels = self._backend.kernels("loss_scale.cu", form.type)
        kernels.each("apply_loss_scale", array.size, update(array, form=form), self.buffer)

    def state(self) -> ScaleState:
        """As the last step has left it; waits for the device."""
        scale, good, skipped, in_a_row = self._backend.fetch(self.buffer)
        return ScaleState(float(scale), int(good), int(skipped), int(in_a_row))

    def restore(self, state: ScaleState) -> None:
        """Go on from a state."""
        self._backend.device.upload(np.array(state, np.float64), self.buffer)
