"""The maximum in each bin of a region."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.regions import bins, images_of, rounded


@final
class ROIPooling:
    """bottom (N, C, H, W), regions (R, 5) -> top (R, C, *pooled); an empty bin gives 0.

    Source: the ROIPoolingLayer of Fast R-CNN.
    """

    def __init__(
        self,
        backend: Backend,
        pooled: tuple[int, int],
        spatial_scale: float,
        bottom: SyncedArray,
        regions: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self.pooled = pooled
        self.spatial_scale = spatial_scale
        self.implementation = "numpy"

    def forward(self, bottom: SyncedArray, regions: SyncedArray, top: SyncedArray) -> None:
        x, y = bottom.plain(), top.plain_overwrite()
        r = regions.plain().reshape(y.shape[0], -1)
        height, width = x.shape[2:]
        images = images_of(r, len(x))
        x1, y1, x2, y2 = rounded(r[:, 1:5] * r.dtype.type(self.spatial_scale)).T
        none = np.zeros_like(x1)
        h_first, h_last = bins(
            none, np.maximum(y2 - y1 + 1, 1) / r.dtype.type(self.pooled[0]), self.pooled[0], 2**31
        )
        w_first, w_last = bins(
            none, np.maximum(x2 - x1 + 1, 1) / r.dtype.type(self.pooled[1]), self.pooled[1], 2**31
        )
        top_of, left_of = y1.astype(np.int64)[:, None], x1.astype(np.int64)[:, None]
        h_first, h_last = (np.clip(h + top_of, 0, height) for h in (h_first, h_last))
        w_first, w_last = (np.clip(w + left_of, 0, width) for w in (w_first, w_last))
        channels = np.arange(x.shape[1])
        plane = height * width
        self.argmax = np.full(y.shape, -1, np.int64)  # in the whole bottom; -1 for an empty bin
        y.fill(0)
        for n, image in enumerate(images):
            for i in range(self.pooled[0]):
                rows = slice(h_first[n, i], h_last[n, i])
                for j in range(self.pooled[1]):
                    columns = slice(w_first[n, j], w_last[n, j])
                    region = x[image, :, rows, columns]
                    if region.size == 0:
                        continue
                    found = region.reshape(len(channels), -1).argmax(axis=1)
                    h, w = np.divmod(found, region.shape[2])
                    h, w = h + rows.start, w + columns.start
                    y[n, :, i, j] = x[image, channels, h, w]
                    self.argmax[n, :, i, j] = (image * len(channels) + channels) * plane + h * width + w

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        """Every bin's diff goes to its maximum; overlapping regions add up."""
        dx = bottom_diff.plain_overwrite()
        full = self.argmax >= 0
        summed = np.bincount(self.argmax[full], weights=top_diff.plain()[full], minlength=dx.size)
        dx[...] = summed.reshape(dx.shape)
