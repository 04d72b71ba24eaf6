"""Encoded images to pixels, as OpenCV decodes them for Caffe: channels in the order blue, green, red."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import simplejpeg

from dtrain.data.jpeg_header import JpegHeader, jpeg_header
from dtrain.data.record import Pixels
from dtrain.errors import DataError

Colour = Literal["as stored", "colour", "grey"]
Shrink: TypeAlias = Callable[[int, int], int]
"""From height and width of a JPEG to 1, 2, 4 or 8: of so much less it is decoded faster."""

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_MOST_PIXELS = 1 << 30  # OpenCV's limit, beyond which it says so


@cache
def opencv() -> Any:
    """The cv2 module, with its own threads off: the feeder has threads, and ranks share the machine."""
    import cv2

    cv2.setNumThreads(0)
    return cv2


def decode_image(
    data: bytes | memoryview | npt.NDArray[np.uint8],
    colour: Colour,
    where: object,
    shrink: Shrink | None = None,
) -> Pixels:
    """Pixels (C, H, W), uint8, as a view of (H, W, C).

    where: what errors call the image, by its `str`.
    shrink: by how much a JPEG may be smaller; not for images as stored.
    """
    buffer = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
    _refuse_cut_jpeg(buffer, where)
    header, factor, image = jpeg_header(buffer), 1, None
    if header is not None:
        factor = 1 if shrink is None else shrink(header.height, header.width)
        image = _decode_jpeg(buffer, header, colour, factor)
    return as_planes(_decode_by_opencv(buffer, colour, where, factor) if image is None else image)


def _decode_jpeg(
    buffer: npt.NDArray[np.uint8], header: JpegHeader, colour: Colour, shrink: int
) -> npt.NDArray[np.uint8] | None:
    """The pixels that OpenCV gives, sooner: libjpeg-turbo writes them where they stay.

    None for what is OpenCV's: grey images, those of a camera that was turned, and JPEGs with errors in them,
    which it reads as far as they go.
    """
    if header.height * header.width > _MOST_PIXELS:
        return None
    if colour == "grey" or (colour == "colour" and header.is_turned):
        return None
    if header.channels not in ((1, 3) if colour == "colour" else (3,)):
        return None
    least = -(-header.height // shrink), -(-header.width // shrink)
    try:
        image = simplejpeg.decode_jpeg(
            buffer, "BGR", min_height=least[0], min_width=least[1], min_factor=shrink
        )
    except ValueError:
        return None
    decoded: npt.NDArray[np.uint8] = image
    return decoded


def _decode_by_opencv(
    buffer: npt.NDArray[np.uint8], colour: Colour, where: object, shrink: int
) -> npt.NDArray[np.uint8]:
    cv2 = opencv()
    flags = {"as stored": cv2.IMREAD_UNCHANGED, "colour": cv2.IMREAD_COLOR, "grey": cv2.IMREAD_GRAYSCALE}
    try:
        flag = flags[colour] if shrink == 1 else _shrinking(cv2, colour, shrink)
        image = cv2.imdecode(buffer, flag) if buffer.size else None
    except cv2.error as error:
        raise DataError(f"{where}: must be an image that OpenCV decodes, got {error}") from error
    if image is None:
        raise DataError(
            f"{where}: must be an image that OpenCV decodes (JPEG, PNG, BMP, WebP, TIFF), "
            f"got {buffer.size} bytes that start with {bytes(buffer[:8]).hex(' ') or 'nothing'}"
        )
    if image.dtype != np.uint8:
        raise DataError(
            f"{where}: image must have 8 bits a channel, got {image.dtype}; set force_color or force_gray"
        )
    decoded: npt.NDArray[np.uint8] = image
    return decoded


def _shrinking(cv2: Any, colour: Colour, shrink: int) -> int:
    assert colour != "as stored"
    return int(getattr(cv2, f"IMREAD_REDUCED_{'COLOR' if colour == 'colour' else 'GRAYSCALE'}_{shrink}"))


def _refuse_cut_jpeg(buffer: npt.NDArray[np.uint8], where: object) -> None:
    """OpenCV paints what a cut JPEG lacks in grey and goes on; a marker of its end is in every whole one.

    Other bytes may follow the marker, and the thumbnail that a camera puts in front has one of its own.
    """
    content = buffer.data
    if bytes(content[:2]) != _JPEG_START or bytes(content[-2:]) == _JPEG_END:
        return
    if bytes(content[len(content) // 2 :]).rfind(_JPEG_END) < 0:
        raise DataError(
            f"{where}: a JPEG must go on to its end marker, got a file cut short after {len(content)} bytes"
        )


def as_planes(image: npt.NDArray[np.uint8]) -> Pixels:
    """OpenCV's (H, W) or (H, W, C) as (C, H, W), without a copy."""
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


def short_side_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """(height, width) of an image of the same form whose shorter side has so many pixels."""
    if height <= width:
        return short_side, max(short_side, round(width * short_side / height))
    return max(short_side, round(height * short_side / width)), short_side


def encode_pixels_as(suffix: str, pixels: Pixels, where: str, quality: int = 95) -> bytes:
    """An encoded image (jpg, png, ...) of (C, H, W) pixels."""
    cv2 = opencv()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix.lower() in ("jpg", "jpeg") else []
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    try:
        done, buffer = cv2.imencode("." + suffix.lower(), image, options)
    except cv2.error as error:
        raise DataError(f'{where}: encoding must be one that OpenCV writes, got "{suffix}"') from error
    if not done:
        raise DataError(f'{where}: image must be encodable as "{suffix}", got a refusal of OpenCV')
    return bytes(buffer)


def resize_image(pixels: Pixels, height: int, width: int) -> Pixels:
    """Bilinear, as OpenCV does by default."""
    if pixels.shape[1:] == (height, width):
        return pixels
    image = pixels.transpose(1, 2, 0)
    resized: npt.NDArray[np.uint8] = opencv().resize(np.ascontiguousarray(image), (width, height))
    return as_planes(resized)
