"""Pooling by sliding windows: maximum, mean, or one element drawn in proportion to its value."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.window import PoolingWindow


@final
class Pooling:
    """bottom (N, C, H, W) -> top (N, C, H', W'), argmax likewise or None.

    AVE divides by the window clipped to the padded image. STOCHASTIC in training draws an element with
    probability proportional to its value, in testing takes the value-weighted mean; its draws are the
    host's, so that they are the same on every device. Source: Caffe's PoolingLayer.
    """

    def __init__(
        self,
        backend: CudaBackend,
        window: PoolingWindow,
        training: bool,
        bottom: SyncedArray,
        top: SyncedArray,
        argmax: SyncedArray | None,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("pooling.cu")
        self.window = window
        self.training = training
        self._settings = (*bottom.shape[2:], *top.shape[2:], *window.kernel, *window.stride, *window.pad)
        # of the chosen element in the H x W plane
        self._index: Buffer | None = None if window.method == "AVE" else backend.empty(top.size, np.int32)
        self.implementation = "cuda"

    def forward(
        self,
        bottom: SyncedArray,
        top: SyncedArray,
        argmax: SyncedArray | None,
        key: int,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        """`key` seeds the draws of STOCHASTIC; image k on this rank is image k * size + rank of the job."""
        sides = read(bottom), write(top)
        if self.window.method == "AVE":
            self._kernels.each("mean_pool_forward", top.size, *sides, *self._settings)
        elif self.window.method == "STOCHASTIC":
            drawn = self._draw(top, key, rank, size) if self.training else None
            self._kernels.each(
                "stochastic_pool_forward", top.size, *sides, self._index, drawn, *self._settings
            )
        else:
            self._kernels.each("max_pool_forward", top.size, *sides, self._index, *self._settings)
        if argmax is not None:
            self._kernels.each("index_to_real", top.size, self._index, write(argmax))

    def _draw(self, top: SyncedArray, key: int, rank: int, size: int) -> Buffer:
        """A number in [0, 1) for each output: a function of the image's place in the job's batch."""
        draws = [
            np.random.default_rng((key, n * size + rank)).random(top.shape[1:]) for n in range(top.shape[0])
        ]
        return self._backend.constants(np.stack(draws), np.float64)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        dx = write(bottom_diff)
        if self._index is None:
            self._kernels.each("mean_pool_backward", bottom_diff.size, read(top_diff), dx, *self._settings)
        else:
            self._kernels.each(
                "pool_backward", bottom_diff.size, read(top_diff), self._index, dx, *self._settings
            )
