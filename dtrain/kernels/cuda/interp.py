"""Bilinear interpolation that maps corner pixels to corner pixels."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.interp import weights
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer


def sparse(backend: CudaBackend, matrix: NDArray[np.float64]) -> tuple[Buffer, Buffer, Buffer]:
    """(where each row begins, columns, values) of what is not zero."""
    rows, columns = np.nonzero(matrix)
    starts = np.searchsorted(rows, np.arange(len(matrix) + 1))
    values = matrix[rows, columns]
    return (
        backend.constants(starts, np.int32),
        backend.constants(columns, np.int32),
        backend.constants(values),
    )


@final
class Interp:
    """bottom (N, C, H, W), less `crop` rows and columns (before, after) -> top (N, C, H', W').

    Source: DeepLab's InterpLayer.
    """

    def __init__(
        self, backend: CudaBackend, crop: tuple[int, int], bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self._kernels = backend.kernels("copies.cu")
        image, out = bottom.shape[2:], top.shape[2:]
        before, after = crop
        lines = []
        for extent, length in zip(image, out, strict=True):
            whole = np.zeros((length, extent))
            whole[:, before : extent - after] = weights(extent - before - after, length)
            lines.append(whole)
        self._forward = *image, *out, *(part for whole in lines for part in sparse(backend, whole))
        self._backward = *out, *image, *(part for whole in lines for part in sparse(backend, whole.T))
        self.implementation = "cuda"

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._kernels.each("combine_lines", top.size, read(bottom), write(top), *self._forward)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        sides = read(top_diff), write(bottom_diff)
        self._kernels.each("combine_lines", bottom_diff.size, *sides, *self._backward)
