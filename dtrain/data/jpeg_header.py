"""What the header of a JPEG says of its image, without decoding it."""

from __future__ import annotations

from typing import Literal, NamedTuple, final

import numpy as np
import numpy.typing as npt

_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0)))
_CAMERA, _EXIF = 0xE1, b"Exif\0\0"
_ORIENTATION, _UPRIGHT = 0x0112, 1
_ENTRY_BYTES = 12
_FURTHEST = 64  # segments before the frame


@final
class JpegHeader(NamedTuple):
    height: int
    width: int
    channels: int
    is_turned: bool
    """The camera's notes in front of the frame say that it was not held upright, or are not understood."""


def jpeg_header(buffer: npt.NDArray[np.uint8]) -> JpegHeader | None:
    """None where the bytes are no JPEG with a frame header near its start."""
    content = buffer.data
    if len(content) < 4 or content[0] != 0xFF or content[1] != 0xD8:
        return None
    at, is_turned = 2, False
    for _ in range(_FURTHEST):
        if at + 10 > len(content) or content[at] != 0xFF:
            return None
        marker = content[at + 1]
        if marker in _FRAMES:
            height, width = content[at + 5] << 8 | content[at + 6], content[at + 7] << 8 | content[at + 8]
            return JpegHeader(height, width, content[at + 9], is_turned)
        after = at + 2 + (content[at + 2] << 8 | content[at + 3])
        if marker == _CAMERA and content[at + 4 : at + 10] == _EXIF:
            is_turned = is_turned or _orientation(bytes(content[at + 10 : after])) != _UPRIGHT
        at = after
    return None


def _orientation(notes: bytes) -> int:
    """As Exif numbers it, from notes in the form of a TIFF file; 0 where they are not understood."""
    order: Literal["big", "little"] = "big" if notes[:2] == b"MM" else "little"

    def number(at: int, num_bytes: int) -> int:
        return int.from_bytes(notes[at : at + num_bytes], order)

    if notes[:2] not in (b"MM", b"II") or number(2, 2) != 42:
        return 0
    entries = number(4, 4)
    for n in range(number(entries, 2)):
        entry = entries + 2 + n * _ENTRY_BYTES
        if entry + _ENTRY_BYTES > len(notes):
            return 0
        if number(entry, 2) == _ORIENTATION:
            return number(entry + 8, 2)
    return _UPRIGHT
