"""Cut, resize, mirror, mean and scale of a colour image in one pass; `transform_reference` defines it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import compiled_fused
from dtrain.data.eight_pixels import eight_pixels
from dtrain.data.transform_kernels import Floats

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]


@compiled_fused
def resized(
    src: Bytes,
    top: int,
    left: int,
    rows: int,
    columns: int,
    mirror: bool,
    means: Floats,
    scale: float,
    out: Floats,
) -> None:
    """out (3, h, w) <- (rows x columns of src (H, W, 3) from (top, left) on, bilinear, - mean) * scale.

    Without the rounding to 8 bits that OpenCV's resize does between.
    """
    _, height, width = out.shape
    left_of = np.empty(width, np.int64)
    above, across, down = (
        np.empty(height, np.int64),
        np.empty(width, np.float32),
        np.empty(height, np.float32),
    )
    _taps(columns, mirror, left_of, across)
    _taps(rows, False, above, down)
    for x in range(width):
        left_of[x] *= 3
    size, pitch = 3 * columns, 3 * src.shape[1]
    # behind the last pixel are zeros, of which its neighbours take a share of nothing
    line, flat = np.zeros(size + 4, np.float32), src.reshape(src.size)
    for y in range(height):
        upper = (top + above[y]) * pitch + 3 * left
        lower = (top + min(above[y] + 1, rows - 1)) * pitch + 3 * left
        _between(flat[upper : upper + size], flat[lower : lower + size], down[y], line[:size])
        _spread(line, left_of, across, means, np.float32(scale), out[0, y], out[1, y], out[2, y])


@compiled_fused
def _taps(source: int, mirror: bool, first: Numbers, shares: Floats) -> None:
    """For each pixel of a row, that of the source to its left and the share of the one that follows."""
    num = first.size
    for n in range(num):
        place = (n + 0.5) * (source / num) - 0.5  # centres of pixels lie on centres
        before = int(np.floor(place))
        share = place - before
        if before < 0 or before >= source - 1:
            before, share = min(max(before, 0), source - 1), 0.0
        to = num - 1 - n if mirror else n
        first[to], shares[to] = before, share


@compiled_fused
def _between(upper: Bytes, lower: Bytes, share: np.float32, line: Floats) -> None:
    for i in range(line.size):
        value = np.float32(upper[i])
        line[i] = value + share * (np.float32(lower[i]) - value)


@compiled_fused
def _spread(
    line: Floats,
    left_of: Numbers,
    across: Floats,
    means: Floats,
    factor: np.float32,
    out_0: Floats,
    out_1: Floats,
    out_2: Floats,
) -> None:
    row, places, shares, centre = (
        line.ctypes.data,
        left_of.ctypes.data,
        across.ctypes.data,
        means.ctypes.data,
    )
    first, second, third = out_0.ctypes.data, out_1.ctypes.data, out_2.ctypes.data
    whole = out_0.size - out_0.size % 8
    for x in range(0, whole, 8):
        to = 4 * x
        eight_pixels(row, places + 2 * to, shares + to, centre, factor, first + to, second + to, third + to)
    for x in range(whole, out_0.size):
        at, share = left_of[x], across[x]
        out_0[x] = (line[at] + share * (line[at + 3] - line[at]) - means[0]) * factor
        out_1[x] = (line[at + 1] + share * (line[at + 4] - line[at + 1]) - means[1]) * factor
        out_2[x] = (line[at + 2] + share * (line[at + 5] - line[at + 2]) - means[2]) * factor
