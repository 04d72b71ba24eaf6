"""Dropout: y = x / (1 - ratio) where a drawn bit says so, else 0."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target
from dtrain.kernels.cpu.splitmix import words


def kept(key: int, ratio: float, rank: int, size: int, shape: Shape) -> NDArray[np.bool_]:
    """Which elements stay: a function of the key and of the element's place in the whole job's batch.

    Element j of a row takes half j % 2 (low first) of the row's word j // 2, as splitmix.words numbers them,
    and stays if its 32 bits are at least ratio 2^32.
    """
    rows = shape[0] if shape else 1
    width = int(np.prod(shape[1:]))
    z = words(key, rank, size, rows, (width + 1) // 2)
    bits: NDArray[Any] = z.astype("<u8", copy=False).view("<u4")[:, :width]
    return np.asarray(bits >= np.uint32(min(round(ratio * 2**32), 2**32 - 1))).reshape(shape)


@final
class Dropout:
    """bottom -> top of the same shape; both may be one array; `ratio` 0 copies.

    The mask is that of `kept` for this rank; `draw` sets the key of the passes that follow.
    """

    def __init__(
        self, backend: Backend, ratio: float, rank: int, size: int, bottom: SyncedArray, top: SyncedArray
    ) -> None:
        self.ratio = ratio
        self.rank = rank
        self.size = size
        self.implementation = "numpy"
        self._key = 0
        self._mask: NDArray[np.bool_] | None = None

    def draw(self, key: int) -> None:
        """Forward and backward passes that follow take the mask of this key."""
        if key != self._key:
            self._key, self._mask = key, None

    def _apply(self, source: SyncedArray, result: SyncedArray) -> None:
        if self.ratio == 0:
            if result is not source:
                np.copyto(result.plain_overwrite(), source.plain())
            return
        if self._mask is None:
            self._mask = kept(self._key, self.ratio, self.rank, self.size, source.shape)
        y = target(result, source)
        np.multiply(source.plain(), self._mask, out=y)
        y *= 1 / (1 - self.ratio)

    def forward(self, bottom: SyncedArray, top: SyncedArray) -> None:
        self._apply(bottom, top)

    def backward(self, top_diff: SyncedArray, bottom_diff: SyncedArray) -> None:
        self._apply(top_diff, bottom_diff)
