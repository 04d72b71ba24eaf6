"""What the header of a JPEG says of its image, without decoding it."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_CAMERA, _EXIF = 0xE1, b"Exif"
_FURTHEST = 64  # segments before the frame


@final
class JpegHeader(NamedTuple):
    height: int
    width: int
    channels: int
    has_exif: bool
    """A camera's notes are in front of the frame, among them how it was held."""


def jpeg_header(buffer: npt.NDArray[np.uint8]) -> JpegHeader | None:
    """None where the bytes are no JPEG with a frame header near its start."""
    content = buffer.data
    if len(content) < 4 or content[0] != 0xFF or content[1] != 0xD8:
        return None
    at, has_exif = 2, False
    for _ in range(_FURTHEST):
        if at + 10 > len(content) or content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker in _FRAMES:
            height, width = content[at + 5] << 8 | content[at + 6], content[at + 7] << 8 | content[at + 8]
            return JpegHeader(height, width, content[at + 9], has_exif)
        has_exif = has_exif or (marker == _CAMERA and content[at + 4 : at + 8] == _EXIF)
        at += 2 + (content[at + 2] << 8 | content[at + 3])
    return None
