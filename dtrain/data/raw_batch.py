"""A batch of raw pixels from serialised Datum messages in one call, which runs without Python's lock."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import carray, compiled, pointer, prefetch
from dtrain.data.datum_scan import (
    CHANNELS,
    COLUMNS,
    DATA_BYTES,
    DATA_START,
    ENCODED,
    HEIGHT,
    LABEL,
    OK,
    WIDTH,
    Table,
    scan_one,
)
from dtrain.data.hashing import Words
from dtrain.data.sample_draws import place_of
from dtrain.data.transform_kernels import Floats, planar

Bytes = npt.NDArray[np.uint8]

_LINE_BYTES = 64
_AHEAD_BYTES = 4096  # of the next message; in longer ones the processor sees for itself where it goes


@compiled
def raw_batch(
    addresses: Table,
    lengths: Table,
    samples: Table,
    key: Words,
    train: bool,
    mirror: bool,
    crop_h: int,
    crop_w: int,
    mean_image: Floats,
    mean_values: Floats,
    scale: float,
    out: Floats,
    labels: Floats,
) -> bool:
    """out (N, C, h, w), labels (N,) <- messages of raw uint8 pixels, each drawn as its sample.

    False, with some of both overwritten, where a message holds anything else or does not fit the settings.
    """
    num, channels, height, width = out.shape
    if mean_values.size != 1 and mean_values.size != channels:
        return False
    means = np.empty(channels, np.float32)
    for c in range(channels):
        means[c] = mean_values[c if mean_values.size > 1 else 0]
    fields = np.empty(COLUMNS, np.int64)
    count = channels * height * width
    flat = out.reshape(out.size)
    factor = np.float32(scale)
    for n in range(num):
        load_ahead(addresses, lengths, n)
        scan_one(addresses[n], lengths[n], fields)
        if not fits_batch(fields, channels, height, width, crop_h, crop_w, mean_image):
            return False
        rows, columns, size = fields[HEIGHT], fields[WIDTH], fields[DATA_BYTES]
        top, left, turned = place_of(samples[n], key, train, mirror, rows - height, columns - width)
        labels[n] = fields[LABEL]
        data = pointer(addresses[n] + fields[DATA_START])
        if size == count and not turned:
            target = flat[n * count : (n + 1) * count]
            _whole(carray(data, count, np.uint8), mean_image, means, factor, target)
            continue
        src = carray(data, (channels, rows, columns), np.uint8)
        planar(src, top, left, turned, mean_image, means, scale, out[n])
    return True


@compiled
def load_ahead(addresses: Table, lengths: Table, n: int) -> None:
    """Have the processor load the message behind the n-th: they lie anywhere, and it cannot foresee where."""
    following = addresses[min(n + 1, addresses.shape[0] - 1)]
    for at in range(0, min(lengths[n], _AHEAD_BYTES), _LINE_BYTES):
        prefetch(following + at)


@compiled
def fits_batch(
    fields: Table, channels: int, height: int, width: int, crop_h: int, crop_w: int, mean_image: Floats
) -> bool:
    """Whether a message, by its row of `scan`'s table, holds uint8 pixels from which such an image is cut."""
    rows, columns, size = fields[HEIGHT], fields[WIDTH], fields[DATA_BYTES]
    fits = fields[OK] == 1 and fields[ENCODED] == 0 and fields[CHANNELS] == channels
    fits = fits and rows >= height and columns >= width and channels * rows <= size and columns <= size
    fits = fits and channels * rows * columns == size
    fits = fits and (rows == height or crop_h == height) and (columns == width or crop_w == width)
    if mean_image.size > 0:
        fits = fits and mean_image.shape == (channels, rows, columns)
    return bool(fits)


@compiled
def _whole(src: Bytes, mean_image: Floats, means: Floats, factor: np.float32, out: Floats) -> None:
    """`planar` of an image that is neither cut nor mirrored, pixels after pixels."""
    if mean_image.size > 0:
        mean_pixels = mean_image.reshape(mean_image.size)
        for i in range(out.size):
            out[i] = (np.float32(src[i]) - mean_pixels[i]) * factor
        return
    size = out.size // means.size
    for c in range(means.size):
        mean, plane, target = means[c], src[c * size : (c + 1) * size], out[c * size : (c + 1) * size]
        for i in range(size):
            target[i] = (np.float32(plane[i]) - mean) * factor
