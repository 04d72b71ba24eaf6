"""The maximum in each bin of a region."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.cpu.labels import Index
from dtrain.kernels.cpu.regions import bins, images_of, rounded
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.regions import Bins, on_device


@final
class ROIPooling:
    """bottom (N, C, H, W), regions (R, 5) -> top (R, C, *pooled); an empty bin gives 0.

    Source: the ROIPoolingLayer of Fast R-CNN.
    """

    def __init__(
        self,
        backend: CudaBackend,
        pooled: tuple[int, int],
        spatial_scale: float,
        bottom: SyncedArray,
        regions: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("copies.cu")
        self.pooled = pooled
        self.spatial_scale = spatial_scale
        self._index = backend.empty(top.size, np.int32)  # in the plane; -1 for an empty bin
        self._bins: Bins | None = None  # of the last forward pass
        self._regions = top.shape[0]
        self.implementation = "cuda"

    def _side(self, low: Plain, high: Plain, num: int, extent: int) -> tuple[Index, Index]:
        """First and past-the-last positions of the bins along one axis."""
        size = np.maximum(high - low + 1, 1) / low.dtype.type(num)
        first, last = bins(np.zeros_like(low), size, num, 2**31)
        start = low.astype(np.int64)[:, None]
        return np.clip(first + start, 0, extent), np.clip(last + start, 0, extent)

    def forward(self, bottom: SyncedArray, regions: SyncedArray, top: SyncedArray) -> None:
        r = regions.plain().reshape(top.shape[0], -1)
        num, channels, height, width = bottom.shape
        images = images_of(r, num)
        x1, y1, x2, y2 = rounded(r[:, 1:5] * r.dtype.type(self.spatial_scale)).T
        rows = self._side(y1, y2, self.pooled[0], height)
        columns = self._side(x1, x2, self.pooled[1], width)
        self._bins = on_device(self._backend, images, rows, columns)
        sizes = channels, height, width, *self.pooled
        sides = read(bottom), write(top), self._index
        self._kernels.each("roi_pool_forward", top.size, *sides, *self._bins, *sizes)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        """Every bin's diff goes to its maximum; overlapping regions add up."""
        assert self._bins is not None, "forward ran before"
        sizes = self._regions, *bottom_diff.shape[1:], *self.pooled
        sides = read(top_diff), self._index, write(bottom_diff)
        self._kernels.each("roi_pool_backward", bottom_diff.size, *sides, *self._bins, *sizes)
