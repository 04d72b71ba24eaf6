"""Loss scaling: gradients of 16 bits are kept in range, steps that overflow are skipped and counted.

The gradients are summed over the ranks before they are looked at, so that all ranks skip the same steps.
Source of the net's fields: NVCaffe's global_grad_scale and global_grad_scale_adaptive.
"""

from __future__ import annotations

import logging
from typing import Any, Final, final

import numpy as np

from dtrain.errors import BackendError, ConfigError
from dtrain.kernels.loss_scaling import LossScaling, ScaleState
from dtrain.metrics.recorder import Recorder
from dtrain.net import Net

logger = logging.getLogger(__name__)

FIRST_SCALE: Final = 2.0**16
MOST_IN_A_ROW: Final = 25
"""Skipped steps that end a run: from FIRST_SCALE an adaptive scale needs 16 to come down to 1."""
LOOK_EVERY: Final = 8  # iterations: looking waits for the device


def scaling_of(net: Net) -> LossScaling | None:
    """What the net asks for, or an adaptive scale where layers run in float16; None for none of 16 bits."""
    asked, adapts = net.global_grad_scale, net.global_grad_scale_adaptive
    if asked is not None and not asked > 0:
        raise ConfigError(f"{net.name}: global_grad_scale must be more than 0, got {asked:g}")
    used = {layer.precision or net.scope.backend.precision for layer in net.layers}
    if not used & {"fp16", "bf16"}:
        return None
    if asked is not None:
        return LossScaling(initial=asked, adapts=adapts)
    return LossScaling(initial=FIRST_SCALE) if adapts or "fp16" in used else None


@final
class ScaledLoss:
    """The scale of a net's losses, and what a run tells of it."""

    def __init__(self, net: Net, recorder: Recorder) -> None:
        scaling = scaling_of(net)
        self._net = net
        self.op: Any = None
        self._known = ScaleState(1.0)
        if scaling is None:
            return
        self.op = net.scope.backend.operators("DEFAULT").LossScale(scaling)
        net.losses.scale(self.op.apply)
        self._scale = recorder.gauge("loss_scale", "What gradients are multiplied by on their way back.")
        self._skipped = recorder.counter(
            "skipped_steps_total", "Steps skipped since a gradient was NaN or infinite."
        )
        self._known = scaling.start()
        self._scale.set(scaling.initial)
        logger.info(
            "Loss scale: %g, %s", scaling.initial, "adaptive" if scaling.adapts else "the same for all steps"
        )

    def look(self, it: int) -> None:
        """Behind iteration `it`: count skipped steps. Raises BackendError for too many in a row."""
        if self.op is None or it % LOOK_EVERY:
            return
        state = self.op.state()
        missed = state.skipped - self._known.skipped
        if missed:
            self._skipped.add(missed)
            logger.info(
                "Iteration %d: %d of the last steps skipped, since gradients overflowed; loss scale %g",
                it,
                missed,
                state.scale,
            )
        self._scale.set(state.scale)
        self._known = state
        if state.in_a_row >= MOST_IN_A_ROW:
            raise BackendError(
                f"iteration {it}: gradients must be finite, got {state.in_a_row} steps in a row that had "
                f"others, at loss scale {state.scale:g}; {self._origin()}"
            )

    def _origin(self) -> str:
        """The gradient that is not finite and comes first in the order of backward."""
        for param in self._net.params.in_completion_order():
            if not np.isfinite(param.blob.diff.plain()).all():
                return f"it begins in the gradient of {param.label} ({param.layer.spec.type})"
        return "the gradients of the last step are finite"

    # -- snapshots

    def state(self) -> ScaleState | None:
        """To go on from later."""
        return None if self.op is None else self.op.state()

    def restore(self, state: ScaleState) -> None:
        """Go on from what `state` told, if this run scales its losses too."""
        if self.op is not None:
            self.op.restore(state)
            self._known = state
