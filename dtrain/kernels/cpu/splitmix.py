"""Random words that are a function of a key and of their place in the whole job's batch.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014 (SplitMix64).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Words: TypeAlias = NDArray[Any]


def words(key: int, rank: int, size: int, rows: int, width: int) -> Words:
    """64 bits for each place of (rows, width) on this rank.

    Local row k of rank r among R is global row k R + r. Words are numbered through all global rows from 0;
    word i is output i + 1 of SplitMix64 started at `key`.
    """
    first = (np.arange(rows, dtype=np.uint64) * np.uint64(size) + np.uint64(rank)) * np.uint64(width)
    z: Words = first[:, None] + np.arange(1, width + 1, dtype=np.uint64)
    z *= np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


def uniform(key: int, rank: int, size: int, rows: int, width: int) -> NDArray[np.float64]:
    """In [0, 1): the upper 53 bits of the words."""
    return (words(key, rank, size, rows, width) >> np.uint64(11)).astype(np.float64) * 2.0**-53
