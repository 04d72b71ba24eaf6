"""One step of an update rule over the flat buffers in a single pass: bound by memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from dtrain.errors import BackendError, unknown_name
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.launch import THREADS
from dtrain.kernels.update_rule import Place, UpdateRule

CHUNK: Final = 1 << 13  # elements of a block
RULES: Final = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


@final
class Update:
    """Weights `w`, gradients `g` and the rule's slots, all flat; `l1` decays by the sign of a weight."""

    def __init__(
        self,
        backend: CudaBackend,
        rule: UpdateRule,
        places: Sequence[Place],
        w: Buffer,
        g: Buffer,
        slots: dict[str, Buffer],
        l1: bool,
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
        self._numbers = backend.empty(2 + len(rule.scalars(0)))
        self._sums = backend.empty(self._num_chunks, np.float64)

    def sum_of_squares(self) -> float:
        """Of all gradients."""
        if not self._num_chunks:
            return 0.0
        tables = self._begins, self._ends, self._sums
        self._kernels.launch("sum_of_squares", (self._num_chunks,), (THREADS,), self._g, *tables)
        return float(self._backend.fetch(self._sums).sum())

    def step(self, lr: float, scale: float, it: int) -> None:
        """w follows scale * g + decay * w (or its sign) at the rate lr * lr_mult; g stays as it is."""
        if not self._num_chunks:
            return
        numbers = np.array([lr, scale, *self._rule.scalars(it)], self._backend.dtype)
        self._backend.device.upload(numbers, self._numbers)
        tables = self._begins, self._ends, self._owners, self._lr_mults, self._decays, self._numbers
        args = self._w, self._g, *self._slots, *tables, self._l1
        self._kernels.launch(self._rule.name.lower(), (self._num_chunks,), (THREADS,), *args)
