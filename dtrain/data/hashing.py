"""Random numbers computed from what they are for, so that no state has to be kept or handed on."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import compiled

Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_FACTORS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_HALF = np.uint64(32)


def mix(words: Words) -> Words:
    """A bijection of 64-bit words in which every bit depends on every bit.

    Source: the output function of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
    Generators, 2014).
    """
    z = words + _GOLDEN
    z = (z ^ (z >> _SHIFTS[0])) * _FACTORS[0]
    z = (z ^ (z >> _SHIFTS[1])) * _FACTORS[1]
    return z ^ (z >> _SHIFTS[2])


mix_one = compiled(mix)
"""`mix` of one word inside compiled functions."""


def keyed(*keys: int) -> Words:
    """One word, of shape (1,), that depends on all the keys and on their order."""
    word = np.zeros(1, np.uint64)
    for key in keys:
        word = mix(word ^ np.array([key & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return word


def below(words: Words, limits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers in [0, limit), uniform to one part in 2^32 / limit, limits up to 2^32.

    Source: the multiplication of Lemire, Fast Random Integer Generation in an Interval, 2019.
    """
    return (((words >> _HALF) * limits.astype(np.uint64)) >> _HALF).astype(np.int64)
