"""One step of an update rule over the flat buffers in a single pass: bound by memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

import numpy as np

from dtrain.errors import BackendError, unknown_name
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.launch import THREADS
from dtrain.kernels.cuda.loss_scale import LossScale
from dtrain.kernels.loss_scaling import LossScaling
from dtrain.kernels.update_rule import Place, UpdateRule

CHUNK: Final = 1 << 13  # elements of a block
RULES: Final = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


@final
class Update:
    """Weights `w`, gradients `g` and the rule's slots, all flat; `l1` decays by the sign of a weight.

    Where the norm of the gradients is more than `clip`, they are scaled down to it. With a `loss_scale` they
    are divided by it, and a step is skipped whose gradients are not all numbers.
    """

    def __init__(
        self,
        backend: CudaBackend,
        rule: UpdateRule,
        places: Sequence[Place],
        w: Buffer,
        g: Buffer,
        slots: dict[str, Buffer],
        l1: bool,
        clip: float | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        if rule.name not in RULES:
            raise BackendError(f"CUDA: {unknown_name('update rule', rule.name, RULES)}")
        self._backend = backend
        self._kernels = backend.kernels("update.cu")
        self._rule = rule
        self._w, self._g, self._slots = w, g, [slots[name] for name in rule.slots]
        self._l1 = int(l1)
        chunks = [
            (begin, min(begin + CHUNK, place.stop), k)
            for k, place in enumerate(places)
            for begin in range(place.start, place.stop, CHUNK)
        ]
        table = np.array(chunks, np.int64).reshape(-1, 3)
        self._num_chunks = len(table)
        self._begins = backend.constants(table[:, 0], np.int64)
        self._ends = backend.constants(table[:, 1], np.int64)
        self._owners = backend.constants(table[:, 2], np.int32)
        self._lr_mults = backend.constants([place.lr_mult for place in places])
        self._decays = backend.constants([place.decay for place in places])
        self._numbers = backend.variable(1 + len(rule.scalars(0)), backend.dtype)  # lr, then the rule's
        self._counts = backend.variable(2, np.float64)  # ranks and passes
        self._clip = clip
        self._loss_scale = loss_scale
        self._sums = backend.empty(self._num_chunks, np.float64)
        self._control = backend.constants([1.0, 1.0, math.nan], np.float64)  # factor, whether to step, norm

    def set(self, it: int, lr: float, ranks: int, passes: int) -> None:
        """For the steps that follow: iteration, rate, and that gradients are sums over ranks x passes."""
        self._numbers.set(np.array([lr, *self._rule.scalars(it)]))
        self._counts.set(np.array([ranks, passes]))

    def step(self) -> None:
        """w follows mean g + decay * w (or its sign) at the rate lr * lr_mult; g stays as it is."""
        if not self._num_chunks:
            return
        if self._clip is not None or self._loss_scale is not None:
            self._look()
        tables = self._begins, self._ends, self._owners, self._lr_mults, self._decays
        args = self._w, self._g, *self._slots, *tables, self._numbers.buffer, self._counts.buffer
        name = self._rule.name.lower()
        self._kernels.launch(name, (self._num_chunks,), (THREADS,), *args, self._control, self._l1)

    def _look(self) -> None:
        """Find the norm, and what follows from it for this step and for the loss scale of the next."""
        tables = self._begins, self._ends, self._sums
        self._kernels.launch("sum_of_squares", (self._num_chunks,), (THREADS,), self._g, *tables)
        clip = np.float64(-1 if self._clip is None else self._clip)
        args = self._num_chunks, self._sums, self._counts.buffer, clip, self._control
        scaling = self._loss_scale.scaling if self._loss_scale is not None else LossScaling(initial=1)
        state = self._loss_scale.buffer if self._loss_scale is not None else None
        limits = (scaling.growth, scaling.backoff, scaling.patience, scaling.least, scaling.most)
        settings = int(scaling.adapts), *(np.float64(limit) for limit in limits)
        self._kernels.launch("look_at_gradients", (1,), (THREADS,), *args, state, *settings)

    def gradient_norm(self) -> float:
        """L2, of the last step, mean over the ranks, without the loss scale; NaN where it is not needed."""
        return float(self._backend.fetch(self._control)[2])
