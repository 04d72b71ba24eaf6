"""The fixed order in which a converter writes samples that come sorted by class."""

from __future__ import annotations

import numpy as np

from dtrain.data.sampler import permuted


def shuffled_order(num: int, seed: int) -> list[int]:
    """The permutation of 0..num-1 that the sampler computes for epoch 0; the same on every machine."""
    order: list[int] = permuted(np.arange(num, dtype=np.int64), num, seed, 0).tolist() if num else []
    return order
