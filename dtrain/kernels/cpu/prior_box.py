"""Default boxes around every position of a feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend

Pair: TypeAlias = tuple[float, float]  # (along x, along y)


@final
class PriorBox:
    """top (1, 2, W * H * boxes * 4): corners as shares of the image, and the variances of the four.

    Position (x, y) has its boxes, of the widths and heights `sizes`, around (x + offset, y + offset) step.
    """

    def __init__(
        self,
        backend: Backend,
        feature: tuple[int, int],
        image: Pair,
        step: Pair,
        offset: float,
        sizes: Sequence[Pair],
        variance: Sequence[float],
        clip: bool,
        top: SyncedArray,
    ) -> None:
        width, height = feature
        center = np.empty((height, width, 1, 2))
        center[..., 0] = ((np.arange(width) + offset) * step[0])[None, :, None]
        center[..., 1] = ((np.arange(height) + offset) * step[1])[:, None, None]
        half = np.asarray(sizes, np.float64) / 2
        corners = np.concatenate([center - half, center + half], axis=-1) / (*image, *image)
        if clip:
            corners = corners.clip(0, 1)
        self.corners = corners.reshape(-1)
        self.variance = np.resize(np.asarray(variance, np.float64), self.corners.shape)
        self.implementation = "numpy"

    def forward(self, top: SyncedArray) -> None:
        y = top.plain_overwrite()
        y[0, 0] = self.corners
        y[0, 1] = self.variance
