"""Pooling by sliding windows: maximum, mean, or one element drawn in proportion to its value."""

from __future__ import annotations

from math import prod
from typing import Final, final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Argument, own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer
from dtrain.kernels.cuda.form import Form
from dtrain.kernels.window import PoolingWindow

NONE: Final = 255  # of a window's elements, as a byte


@final
class Pooling:
    """bottom (N, C, H, W) -> top (N, C, H', W'), argmax likewise or None.

    AVE divides by the window clipped to the padded image. STOCHASTIC in training draws an element with
    probability proportional to its value, in testing takes the value-weighted mean; it draws what
    the CPU draws. Source: Caffe's PoolingLayer.
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
        self.window = window
        self.training = training
        self._form = Form(backend.card.real) if window.method == "STOCHASTIC" else own(bottom).form
        own(top).offer(self._form)
        self._kernels = backend.kernels("pooling.cu", self._form.type)
        channels = bottom.shape[1] if self._form.channels_last else 0
        sizes = *bottom.shape[2:], *top.shape[2:]
        self._settings = (*sizes, *window.kernel, *window.stride, *window.pad, channels)
        # of the chosen element in its window, in the order of the top; a byte's last value means none
        self._is_wide = window.method == "STOCHASTIC" or prod(window.kernel) > NONE
        kind = np.int32 if self._is_wide else np.uint8
        self._index: Buffer | None = None if window.method == "AVE" else backend.empty(top.size, kind)
        self._key = backend.variable(1, np.uint64)
        self._rank, self._size = 0, 1
        self.implementation = "cuda"

    def draw(self, key: int, rank: int = 0, size: int = 1) -> None:
        """What STOCHASTIC draws in passes that follow; image k of this rank is k * size + rank of the job."""
        self._key.set(key)
        self._rank, self._size = rank, size

    def forward(self, bottom: SyncedArray, top: SyncedArray, argmax: SyncedArray | None) -> None:
        n, sides = top.size, (read(bottom, form=self._form), write(top, form=self._form))
        if self.window.method == "AVE":
            self._run("mean_pool_forward", n, *sides)
        elif self.window.method == "STOCHASTIC":
            key = self._key.buffer if self.training else None
            job = n // max(top.shape[0], 1), self._rank, self._size
            self._run("stochastic_pool_forward", n, *sides, self._index, key, *job)
        else:
            self._run(f"max_pool_forward{self._suffix}", n, *sides, self._index)
        if argmax is not None:
            self._kernels.each(
                f"argmax_of_windows{self._suffix}", n, self._index, write(argmax), *self._settings
            )

    @property
    def _suffix(self) -> str:
        return "_wide" if self._is_wide else ""

    def _run(self, name: str, count: int, *args: Argument) -> None:
        launch = self._kernels.packed if self._form.channels_last else self._kernels.each
        launch(name, count, *args, *self._settings)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        n, dy, dx = bottom_diff.size, read(top_diff, form=self._form), write(bottom_diff, form=self._form)
        if self._index is None:
            self._run("mean_pool_backward", n, dy, dx)
        else:
            self._run(f"pool_backward{self._suffix}", n, dy, self._index, dx)
