"""One sample as a reader gives it, before anything is done to its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy.typing as npt

Pixels = npt.NDArray[Any]
"""(C, H, W), uint8 or float32, channels in the order blue, green, red; any memory order."""


@final
@dataclass(frozen=True, slots=True)
class Record:
    """Pixels, or the bytes of an encoded image (JPEG, PNG, ...): exactly one of the two is set."""

    where: str
    """Source and key, as errors name them."""
    labels: tuple[float, ...]
    pixels: Pixels | None = None
    encoded: bytes | memoryview | None = None
