"""What a step looks at before it is taken: the norm of all gradients, and whether they are numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import final

from dtrain.kernels.cpu.loss_scale import LossScale


@final
class GradientNorm:
    """Clips at `clip`, unless that is None; divides by a loss scale, and then refuses what is no number."""

    def __init__(self, clip: float | None, loss_scale: LossScale | None) -> None:
        self._clip = clip
        self._loss_scale = loss_scale
        self.value = math.nan
        """Of the last step: the L2 norm of the gradients, mean over the ranks, without the loss scale."""

    def factor(self, sum_of_squares: Callable[[], float], ranks: int) -> float | None:
        """What the gradients, sums over so many ranks, are multiplied by; None where the step is skipped."""
        if self._clip is None and self._loss_scale is None:
            return 1.0
        total, scale = sum_of_squares(), 1.0
        if self._loss_scale is not None:
            before = self._loss_scale.state()
            scale = before.scale
            self._loss_scale.restore(self._loss_scale.scaling.after(before, total))
        self.value = math.sqrt(total) / ranks / scale
        if self._loss_scale is not None and not math.isfinite(total):
            return None
        if self._clip is not None and self.value > self._clip:  # NaN is left alone, as in Caffe
            return self._clip / self.value / scale
        return 1.0 / scale
