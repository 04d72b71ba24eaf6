"""L2 norm 1 for every position or every image, then a scale: y = scale x / sqrt(sum x^2 + eps)."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


@final
class Normalize:
    """bottom (N, C, spatial...), scale () or (C,) -> top. The sum runs over C, or with `across` also over
    the spatial axes."""

    def __init__(
        self,
        backend: Backend,
        across: bool,
        eps: float,
        bottom: SyncedArray,
        scale: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.axes = (1, 2) if across else (1,)
        self.eps = eps
        self.implementation = "numpy"

    @staticmethod
    def _flat(array: Plain) -> Plain:
        return array.reshape(array.shape[0], array.shape[1], -1)

    def _unit(self, x: Plain) -> tuple[Plain, Plain]:
        """(x of norm 1, the norms)."""
        norm = np.sqrt(np.square(x).sum(axis=self.axes, keepdims=True) + self.eps)
        return x / norm, norm

    def forward(self, bottom: SyncedArray, scale: SyncedArray, top: SyncedArray) -> None:
        unit, _ = self._unit(self._flat(bottom.plain()))
        np.multiply(unit, scale.plain().reshape(-1, 1), out=self._flat(top.plain_overwrite()))

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        scale: SyncedArray,
        bottom_diff: SyncedArray | None,
        scale_diff: SyncedArray | None,
    ) -> None:
        """With u = x / norm and g = scale dy: dx = (g - u sum(u g)) / norm; dscale = sum(u dy).

        Caffe takes the scale out of sum(u g), which differs where channels have scales of their own.
        """
        dy = self._flat(top_diff.plain())
        unit, norm = self._unit(self._flat(bottom.plain()))
        if scale_diff is not None:
            ds = scale_diff.plain_mutable()
            along = unit * dy
            ds += along.sum() if ds.ndim == 0 else along.sum(axis=(0, 2))
        if bottom_diff is not None:
            g = dy * scale.plain().reshape(-1, 1)
            unit *= (unit * g).sum(axis=self.axes, keepdims=True)
            np.divide(g - unit, norm, out=self._flat(bottom_diff.plain_overwrite()))
