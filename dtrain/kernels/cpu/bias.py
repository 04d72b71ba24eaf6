"""Bias: y = x + b, the bias being the same along some axes."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


@final
class Bias:
    """bias of the bottom's shape from `axis` on for some axes -> top; top and bottom may be one array."""

    def __init__(
        self, backend: Backend, axis: int, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray
    ) -> None:
        self._rows = (int(np.prod(bottom.shape[:axis])), bias.size, -1)
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, bias: SyncedArray, top: SyncedArray) -> None:
        y = target(top, bottom).reshape(self._rows)
        np.add(bottom.plain().reshape(self._rows), bias.plain().reshape(1, -1, 1), out=y)

    def backward(
        self, top_diff: SyncedArray, bottom_diff: SyncedArray | None, bias_diff: SyncedArray | None
    ) -> None:
        """Overwrites `bottom_diff`, adds to `bias_diff`; None is not computed."""
        dy = top_diff.plain()
        if bias_diff is not None:
            bias_diff.plain_mutable().reshape(-1)[...] += dy.reshape(self._rows).sum(axis=(0, 2))
        if bottom_diff is not None and bottom_diff is not top_diff:
            np.copyto(bottom_diff.plain_overwrite(), dy)
