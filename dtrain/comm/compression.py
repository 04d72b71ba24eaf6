"""Gradients as 16-bit numbers on their way between ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np

from dtrain.comm.communicator import Array

FORMATS = ("fp16", "bf16")

Cast: TypeAlias = Callable[[Any, Any, float], None]


@final
@dataclass(frozen=True)
class Compression:
    """How a device casts; a buffer of 16-bit values is one of uint16.

    A gradient is divided by the number of ranks before it is narrowed, so that a sum is no larger than what
    was summed, and multiplied by it when it is widened.
    """

    format: str
    empty: Callable[[int], Any]
    """A device buffer of so many 16-bit values."""
    narrow: Cast
    """source, target, scale: queue target <- scale * source, rounded to 16 bits."""
    widen: Cast
    """source, target, scale: queue target <- scale * source, exactly but for the product."""


def to_floats(bits: Array, format: str) -> Array:
    """16-bit values in host memory as float32."""
    if format == "bf16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(np.float16).astype(np.float32)
