"""The mean in each bin of a region, every bin from channels of its own."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.labels import Index
from dtrain.kernels.cpu.regions import bins, images_of, rounded

LEAST_EXTENT = 0.1  # of a region, in positions: R-FCN's


@final
class PSROIPooling:
    """bottom (N, D * group^2, H, W), regions (R, 5) -> top (R, D, group, group); an empty bin gives 0.

    Source: the PSROIPoolingLayer of R-FCN.
    """

    def __init__(
        self,
        backend: Backend,
        group: int,
        spatial_scale: float,
        bottom: SyncedArray,
        regions: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.group = group
        self.spatial_scale = spatial_scale
        self.implementation = "numpy"

    def _bins(self, regions: Plain, height: int, width: int) -> tuple[Index, Index, Index, Index]:
        """First and past-the-last rows, then columns, of the bins: (R, group) each."""
        scale = regions.dtype.type(self.spatial_scale)
        x1, y1 = rounded(regions[:, 1:3]).T * scale
        x2, y2 = (rounded(regions[:, 3:5]).T + 1) * scale
        group = regions.dtype.type(self.group)
        tall = np.maximum(y2 - y1, regions.dtype.type(LEAST_EXTENT)) / group
        wide = np.maximum(x2 - x1, regions.dtype.type(LEAST_EXTENT)) / group
        return (*bins(y1, tall, self.group, height), *bins(x1, wide, self.group, width))

    def forward(self, bottom: SyncedArray, regions: SyncedArray, top: SyncedArray) -> None:
        x, y = bottom.plain(), top.plain_overwrite()
        r = regions.plain().reshape(y.shape[0], -1)
        images = images_of(r, len(x))
        x = x.reshape(len(x), -1, self.group, self.group, *x.shape[2:])
        h_first, h_last, w_first, w_last = self._bins(r, *x.shape[-2:])
        y.fill(0)
        for n, image in enumerate(images):
            for i in range(self.group):
                for j in range(self.group):
                    part = x[image, :, i, j, h_first[n, i] : h_last[n, i], w_first[n, j] : w_last[n, j]]
                    if part.size:
                        y[n, :, i, j] = part.mean(axis=(1, 2))

    def backward(self, top_diff: SyncedArray, regions: SyncedArray, bottom_diff: SyncedArray) -> None:
        dy, dx = top_diff.plain(), bottom_diff.plain_overwrite()
        r = regions.plain().reshape(dy.shape[0], -1)
        images = images_of(r, len(dx))
        dx.fill(0)
        dx = dx.reshape(len(dx), -1, self.group, self.group, *dx.shape[2:])
        h_first, h_last, w_first, w_last = self._bins(r, *dx.shape[-2:])
        for n, image in enumerate(images):
            for i in range(self.group):
                for j in range(self.group):
                    part = dx[image, :, i, j, h_first[n, i] : h_last[n, i], w_first[n, j] : w_last[n, j]]
                    if part.size:
                        part += (dy[n, :, i, j] / (part.shape[1] * part.shape[2]))[:, None, None]
