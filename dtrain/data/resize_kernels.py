"""Cut, resize, mirror, mean and scale of a colour image in one pass; `transform_reference` defines it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import compiled_fused
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
    factor, last = np.float32(scale), 3 * (columns - 1)
    left_of, right_of = np.empty(width, np.int64), np.empty(width, np.int64)
    above, across, down = (
        np.empty(height, np.int64),
        np.empty(width, np.float32),
        np.empty(height, np.float32),
    )
    _taps(columns, mirror, left_of, across)
    _taps(rows, False, above, down)
    for x in range(width):
        left_of[x] *= 3
        right_of[x] = min(left_of[x] + 3, last)
    size, pitch = 3 * columns, 3 * src.shape[1]
    line, flat = np.empty(size, np.float32), src.reshape(src.size)
    for y in range(height):
        upper = (top + above[y]) * pitch + 3 * left
        lower = (top + min(above[y] + 1, rows - 1)) * pitch + 3 * left
        _between(flat[upper : upper + size], flat[lower : lower + size], down[y], line)
        _spread(line, left_of, right_of, across, means, factor, out[0, y], out[1, y], out[2, y])


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
    right_of: Numbers,
    across: Floats,
    means: Floats,
    factor: np.float32,
    out_0: Floats,
    out_1: Floats,
    out_2: Floats,
) -> None:
    mean_0, mean_1, mean_2 = means[0], means[1], means[2]
    one, two = np.uint64(1), np.uint64(2)
    for x in range(out_0.size):
        at, to, share = np.uint64(left_of[x]), np.uint64(right_of[x]), across[x]
        value_0, value_1, value_2 = line[at], line[at + one], line[at + two]
        out_0[x] = (value_0 + share * (line[to] - value_0) - mean_0) * factor
        out_1[x] = (value_1 + share * (line[to + one] - value_1) - mean_1) * factor
        out_2[x] = (value_2 + share * (line[to + two] - value_2) - mean_2) * factor
