"""Height and width of a JPEG from its header, without decoding it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_FURTHEST = 64  # segments before the frame


def jpeg_size(buffer: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """None where the bytes are no JPEG with a frame header near its start."""
    content = buffer.data
    if len(content) < 4 or content[0] != 0xFF or content[1] != 0xD8:
        return None
    at = 2
    for _ in range(_FURTHEST):
        if at + 9 > len(content) or content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker in _FRAMES:
            return content[at + 5] << 8 | content[at + 6], content[at + 7] << 8 | content[at + 8]
        at += 2 + (content[at + 2] << 8 | content[at + 3])
    return None
