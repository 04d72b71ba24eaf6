"""Dropout: y = x / (1 - ratio) where a drawn bit says so, else 0."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from dtrain.kernels.array import Shape, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.in_place import target


def kept(key: int, ratio: float, rank: int, size: int, shape: Shape) -> NDArray[np.bool_]:
    """Which elements stay: a function of the key and of the element's place in the whole job's batch.

    Local row k of rank r among R is global row k R + r. Element j of a global row takes half j % 2 (low
    first) of word j // 2 of that row, words being numbered through all rows from 0; word i is output i + 1
    of SplitMix64 started at `key`. The element stays if its 32 bits are at least ratio 2^32.
    Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
    """
    rows = shape[0] if shape else 1
    width = int(np.prod(shape[1:]))
    words = (width + 1) // 2
    first = (np.arange(rows, dtype=np.uint64) * np.uint64(size) + np.uint64(rank)) * np.uint64(words)
    z: NDArray[Any] = first[:, None] + np.arange(1, words + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
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
