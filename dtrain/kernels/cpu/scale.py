"""Scale: y = s x + b, the factor and the bias being the same along some axes."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import Kept, target


@final
class Scale:
    """scale and bias, or None, of the bottom's shape from `axis` on for some axes -> top of its shape.

    Top and bottom may be one array. Source: Caffe's ScaleLayer.
    """

    def __init__(
        self,
        backend: Backend,
        axis: int,
        bottom: SyncedArray,
        scale: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
    ) -> None:
        self._rows = (int(np.prod(bottom.shape[:axis])), scale.size, -1)
        self._bottom = Kept()
        self.implementation = "numpy"

    def forward(
        self, bottom: SyncedArray, scale: SyncedArray, bias: SyncedArray | None, top: SyncedArray, keep: bool
    ) -> None:
        """`keep` says that backward may ask for the scale's diff, which needs the bottom's values."""
        if keep:
            self._bottom.keep(bottom, top)
        y = target(top, bottom).reshape(self._rows)
        np.multiply(bottom.plain().reshape(self._rows), scale.plain().reshape(1, -1, 1), out=y)
        if bias is not None:
            y += bias.plain().reshape(1, -1, 1)

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        dy = top_diff.plain().reshape(self._rows)
        if scale_diff is not None:
            product = dy * self._bottom.values(bottom).reshape(self._rows)
            scale_diff.plain_mutable().reshape(-1)[...] += product.sum(axis=(0, 2))
        if bias_diff is not None:
            bias_diff.plain_mutable().reshape(-1)[...] += dy.sum(axis=(0, 2))
        if bottom_diff is not None:
            dx = target(bottom_diff, top_diff).reshape(self._rows)
            np.multiply(dy, scale.plain().reshape(1, -1, 1), out=dx)
