"""The mean in each bin of a region, every bin from channels of its own."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.psroi_pooling import LEAST_EXTENT
from dtrain.kernels.cpu.regions import bins, images_of, rounded
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.regions import Bins, on_device


@final
class PSROIPooling:
    """bottom (N, D * group^2, H, W), regions (R, 5) -> top (R, D, group, group); an empty bin gives 0.

    Source: the PSROIPoolingLayer of R-FCN.
    """

    def __init__(
        self,
        backend: CudaBackend,
        group: int,
        spatial_scale: float,
        bottom: SyncedArray,
        regions: SyncedArray,
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("copies.cu")
        self.group = group
        self.spatial_scale = spatial_scale
        self._regions, self._channels = top.shape[:2]
        self.implementation = "cuda"

    def _bins(self, regions: SyncedArray, num: int, height: int, width: int) -> Bins:
        r = regions.plain().reshape(self._regions, -1)
        images = images_of(r, num)
        scale, group = r.dtype.type(self.spatial_scale), r.dtype.type(self.group)
        x1, y1 = rounded(r[:, 1:3]).T * scale
        x2, y2 = (rounded(r[:, 3:5]).T + 1) * scale
        least = r.dtype.type(LEAST_EXTENT)
        rows = bins(y1, np.maximum(y2 - y1, least) / group, self.group, height)
        columns = bins(x1, np.maximum(x2 - x1, least) / group, self.group, width)
        return on_device(self._backend, images, rows, columns)

    def forward(self, bottom: SyncedArray, regions: SyncedArray, top: SyncedArray) -> None:
        num, _, height, width = bottom.shape
        tables = self._bins(regions, num, height, width)
        sizes = self._channels, height, width, self.group
        self._kernels.each("psroi_pool_forward", top.size, read(bottom), write(top), *tables, *sizes)

    def backward(self, top_diff: SyncedArray, regions: SyncedArray, bottom_diff: SyncedArray) -> None:
        num, _, height, width = bottom_diff.shape
        tables = self._bins(regions, num, height, width)
        sizes = self._regions, self._channels, height, width, self.group
        sides = read(top_diff), write(bottom_diff)
        self._kernels.each("psroi_pool_backward", bottom_diff.size, *sides, *tables, *sizes)
