"""Tells when a loss stops being a number, and where in the net that begins. Training goes on, as in Caffe."""

from __future__ import annotations

import logging
import math
from typing import final

import numpy as np

from dtrain.metrics.recorder import Recorder
from dtrain.net import Net

logger = logging.getLogger(__name__)


@final
class LossWatch:
    """One warning for each run of non-finite losses of this rank."""

    def __init__(self, net: Net, rank: int, recorder: Recorder) -> None:
        self._net = net
        self._rank = rank
        self._was_finite = True
        self._loss = recorder.gauge("local_loss", "Loss of this rank in its newest iteration.")
        self._nonfinite = recorder.counter(
            "nonfinite_losses_total", "Iterations of this rank whose loss was NaN or infinite."
        )

    def see(self, it: int, loss: float) -> None:
        self._loss.set(loss)
        is_finite = math.isfinite(loss)
        if not is_finite:
            self._nonfinite.add()
            if self._was_finite:
                logger.warning(
                    "Iteration %d: loss is %g on rank %d; %s; training goes on",
                    it,
                    loss,
                    self._rank,
                    self._origin(),
                )
        self._was_finite = is_finite

    def _origin(self) -> str:
        """The first value in the order of forward that is not finite: a weight, or what a layer made."""
        for param in self._net.params.owned:
            if not np.isfinite(param.blob.data.plain()).all():
                return f"the weights {param.label} are not finite"
        for step in self._net.steps:
            for name, blob in zip(step.top_names, step.top, strict=True):
                if not np.isfinite(blob.data.plain()).all():
                    return f'it begins in "{name}" of layer "{step.layer.name}" ({step.layer.spec.type})'
        return "no blob of the last pass holds such a value"
