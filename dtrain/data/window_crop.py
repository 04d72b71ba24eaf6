"""Cut a window out of an image and warp it to a square with context. Source: Caffe's WindowDataLayer."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.decode import as_planes, opencv
from dtrain.data.record import Pixels
from dtrain.data.window_file import Window
from dtrain.errors import DataError


@final
class Crop(NamedTuple):
    """The part of the image to warp, the size that it gets, and where that lies in the square."""

    x1: int
    y1: int
    x2: int
    y2: int
    width: int
    height: int
    left: int
    right: int
    top: int


def _round(value: float) -> int:
    """Halves away from zero, as C does."""
    return math.floor(value + 0.5) if value >= 0 else math.ceil(value - 0.5)


def place(window: Window, image: tuple[int, int], size: int, context_pad: int, square: bool) -> Crop:
    """Where the window of an image (height, width) goes in a square of `size`.

    context_pad: pixels of the square on each side that show what lies around the window; what of it lies
    outside the image is left empty. square: take the smallest square around the window instead.
    """
    _, _, x1, y1, x2, y2 = window
    if not context_pad and not square:
        return Crop(x1, y1, x2, y2, size, size, 0, 0, 0)
    scale = size / (size - 2 * context_pad)
    half_h, half_w = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
    center_x, center_y = x1 + half_w, y1 + half_h
    if square:
        half_h = half_w = max(half_h, half_w)
    x1, x2 = _round(center_x - half_w * scale), _round(center_x + half_w * scale)
    y1, y2 = _round(center_y - half_h * scale), _round(center_y + half_h * scale)
    scale_x, scale_y = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
    beyond_left, beyond_right = max(0, -x1), max(0, x2 - image[1] + 1)
    beyond_top, beyond_bottom = max(0, -y1), max(0, y2 - image[0] + 1)
    x1, x2 = x1 + beyond_left, x2 - beyond_right
    y1, y2 = y1 + beyond_top, y2 - beyond_bottom
    return Crop(
        x1,
        y1,
        x2,
        y2,
        _round((x2 - x1 + 1) * scale_x),
        _round((y2 - y1 + 1) * scale_y),
        _round(beyond_left * scale_x),
        _round(beyond_right * scale_x),
        _round(beyond_top * scale_y),
    )


def warp(
    pixels: Pixels, window: Window, size: int, context_pad: int, square: bool, mirror: bool
) -> tuple[Pixels, int, int]:
    """The warped part (C, h, w) of an image (C, H, W), and the row and column of the square where it lies."""
    crop = place(window, pixels.shape[1:], size, context_pad, square)
    if not (0 <= crop.x1 <= crop.x2 < pixels.shape[2] and 0 <= crop.y1 <= crop.y2 < pixels.shape[1]):
        raise DataError(
            f"{window.path}: a window must lie inside the image ({pixels.shape[1]} x {pixels.shape[2]}), "
            f"got x {window.x1} to {window.x2}, y {window.y1} to {window.y2}"
        )
    left = crop.right if mirror else crop.left
    height, width = min(crop.height, size - crop.top), min(crop.width, size - left)
    if height < 1 or width < 1:
        raise DataError(
            f"{window.path}: a window must keep a pixel when it is warped to {size} x {size}, got none of "
            f"x {window.x1} to {window.x2}, y {window.y1} to {window.y2}"
        )
    part = pixels[:, crop.y1 : crop.y2 + 1, crop.x1 : crop.x2 + 1].transpose(1, 2, 0)
    warped: npt.NDArray[np.uint8] = opencv().resize(np.ascontiguousarray(part), (width, height))
    if mirror:
        warped = warped[:, ::-1]
    return as_planes(warped), crop.top, left
