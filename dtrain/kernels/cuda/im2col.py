"""Image to columns, over any number of spatial axes."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.lowering import Lowering
from dtrain.kernels.window import ConvolutionWindow


@final
class Im2col:
    """bottom (N, C, *spatial) -> top (N, C * prod(kernel), *out)."""

    def __init__(
        self, backend: CudaBackend, window: ConvolutionWindow, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._lowering = Lowering(backend, window, bottom.shape[1:])
        self._images = bottom.shape[0]
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._lowering.to_columns(read(bottom), write(top), self._images)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._lowering.to_images(read(top_diff), write(bottom_diff), self._images)
