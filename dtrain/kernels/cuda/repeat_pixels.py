"""Upsampling by repetition: every pixel becomes a block of equal pixels."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.strided import StridedCopy, strides_of


@final
class RepeatPixels:
    """bottom (N, C, H, W) -> top (N, C, H scale_h, W scale_w)."""

    def __init__(
        self, backend: CudaBackend, scale: tuple[int, int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._kernels = backend.kernels("copies.cu")
        n, c, h, w = bottom.shape
        extents = (n * c, h, scale[0], w, scale[1])
        self._forward = StridedCopy(backend, extents, (h * w, w, 0, 1, 0), strides_of(extents))
        self._settings = w, *scale
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._forward.run(read(bottom), write(top))

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        sides = read(top_diff), write(bottom_diff)
        self._kernels.each("repeat_backward", bottom_diff.size, *sides, *self._settings)
