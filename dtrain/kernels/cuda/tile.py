"""Tile: an array repeated along one axis."""

from __future__ import annotations

from math import prod
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class Tile:
    """bottom -> top with `tiles` times the extent at `axis`."""

    def __init__(
        self, backend: CudaBackend, axis: int, tiles: int, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._kernels = backend.kernels("copies.cu")
        self._tiles = tiles
        self._block = prod(bottom.shape[axis:])
        extents = (prod(bottom.shape[:axis]), tiles, self._block)
        self._forward = StridedCopy(backend, extents, (self._block, 0, 1), strides_of(extents))
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom), write(top))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        sides = read(top_diff), write(bottom_diff)
        self._kernels.each("sum_middle", bottom_diff.size, *sides, self._tiles, self._block)
