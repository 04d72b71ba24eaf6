"""What is random about a sample, computed from the seed and the sample's global number."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import compiled_brief
from dtrain.data.hashing import Words, mix_one

_MIRROR, _TOP, _LEFT = np.uint64(0), np.uint64(1), np.uint64(2)  # which of a sample's random numbers is which
_OTHERS = 3  # where those of `draw` begin
_HALF, _SIGN, _FRACTION = np.uint64(32), np.uint64(63), np.uint64(11)


@compiled_brief
def place_of(
    sample: int, key: Words, train: bool, mirror: bool, spare_h: int, spare_w: int
) -> tuple[int, int, bool]:
    """Top and left of a sample's window in an image of so many spare rows and columns, and if it is mirrored.

    The window lies anywhere in TRAIN and in the middle in TEST; half of the samples are mirrored in both.
    """
    word = mix_one(np.uint64(sample) ^ key[0])
    turned = bool(mirror and (mix_one(word ^ _MIRROR) >> _SIGN) == 1)
    if not train:
        return spare_h // 2, spare_w // 2, turned
    # As `hashing.below` chooses.
    top: Any = np.int64(((mix_one(word ^ _TOP) >> _HALF) * np.uint64(spare_h + 1)) >> _HALF)
    left: Any = np.int64(((mix_one(word ^ _LEFT) >> _HALF) * np.uint64(spare_w + 1)) >> _HALF)
    return top, left, turned


@compiled_brief
def draw(samples: npt.NDArray[np.int64], key: Words, numbers: npt.NDArray[np.float64]) -> None:
    """numbers (N, K) <- the random numbers in [0, 1) of each sample."""
    for row in range(len(samples)):
        word = mix_one(np.uint64(samples[row]) ^ key[0])
        for n in range(numbers.shape[1]):
            numbers[row, n] = np.float64(mix_one(word ^ np.uint64(_OTHERS + n)) >> _FRACTION) * 2.0**-53
