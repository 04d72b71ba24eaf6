"""Weights follow gradients: clip, divide, regularise and update, in one pass over the flat buffers.

Source of the order: ApplyUpdate of Caffe's SGDSolver. Clipping compares the norm of the gradients as summed
over iter_size (and averaged over the ranks), before they are divided by iter_size.
"""

from __future__ import annotations

import logging
import math
from typing import final

from dtrain.errors import ConfigError, unknown_name
from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.update_rule import Place, UpdateRule
from dtrain.params import Params
from dtrain.solvers.settings import Settings

logger = logging.getLogger(__name__)

REGULARIZATIONS = ("L2", "L1")


@final
class Updater:
    """A rule with its history over a net's parameters.

    After a step the diffs still hold the summed gradients, not the update that Caffe leaves there.
    """

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        params: Params,
        rule: UpdateRule,
        loss_scale: object | None = None,
    ) -> None:
        """`loss_scale` is the backend's operator LossScale, or None."""
        param = settings.param
        if param.regularization_type not in REGULARIZATIONS:
            known = unknown_name("regularization_type", param.regularization_type, REGULARIZATIONS)
            raise ConfigError(f"{settings.where('regularization_type')}: {known}")
        assert params.data is not None and params.diff is not None, "a net that trains has its own parameters"
        self.rule = rule
        self._params = params
        self._clip: float | None = param.clip_gradients if param.clip_gradients >= 0 else None
        self._loss_scale = loss_scale
        self._iter_size = param.iter_size
        self._slots: dict[str, Plain] = {slot: backend.flat(params.data.size) for slot in rule.slots}
        places = [
            Place(p.start, p.stop, p.lr_mult, param.weight_decay * p.decay_mult)
            for p in params.in_completion_order()
        ]
        self._op = backend.operators("DEFAULT").Update(
            rule,
            places,
            params.data,
            params.diff,
            self._slots,
            param.regularization_type == "L1",
            self._clip,
            loss_scale,
        )
        self.gradient_norm = math.nan
        """L2 norm of the last step's gradients, mean over the ranks; known where clip_gradients is set."""

    def step(self, it: int, lr: float, size: int) -> None:
        """Iteration `it` at rate `lr`; the gradients are sums over `size` ranks and iter_size passes."""
        self.set(it, lr, size)
        self.launch()
        self.tell()

    # A step in the parts of which the second can be replayed.

    def set(self, it: int, lr: float, size: int) -> None:
        """The numbers of the steps that follow; see `step`."""
        self._op.set(it, lr, size, self._iter_size)

    def launch(self) -> None:
        """Change the weights."""
        for param in self._params.owned:
            param.blob.data.pull()
            param.blob.diff.pull()
        self._op.step()
        for param in self._params.owned:
            param.blob.data.push()

    def tell(self) -> None:
        """Log what the last step has clipped; waits for the device where clip_gradients is set."""
        if self._clip is None:
            return
        self.gradient_norm = norm = self._op.gradient_norm()
        is_skipped = self._loss_scale is not None and not math.isfinite(norm)
        if norm > self._clip and not is_skipped:
            logger.info(
                "Gradient clipping: scaling down gradients (L2 norm %g > %g) by scale factor %g",
                norm,
                self._clip,
                self._clip / norm,
            )

    def flat(self) -> list[Plain]:
        """All of the history, as it lies in memory."""
        return list(self._slots.values())

    def history(self) -> list[SyncedArray]:
        """Caffe's history: the first slot of all parameters in Caffe's order, then the second."""
        return [
            param.blob.data.twin(flat[param.start : param.stop])
            for flat in self._slots.values()
            for param in self._params.owned
        ]
