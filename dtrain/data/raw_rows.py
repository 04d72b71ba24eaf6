"""Raw pixels from where they lie into rows for a device, many in one call that runs without Python's lock."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import carray, compiled, pointer
from dtrain.data.datum_scan import COLUMNS, DATA_START, HEIGHT, LABEL, WIDTH, Table, scan_one
from dtrain.data.hashing import Words
from dtrain.data.raw_batch import fits_batch, load_ahead
from dtrain.data.sample_draws import place_of
from dtrain.data.transform_kernels import Floats

Bytes = npt.NDArray[np.uint8]
Heads = npt.NDArray[Any]
"""(N, 4) int32: mirrored, top, left, and one that is not used."""


@compiled
def raw_rows(
    addresses: Table,
    lengths: Table,
    samples: Table,
    key: Words,
    train: bool,
    mirror: bool,
    crop_h: int,
    crop_w: int,
    mean_image: Floats,
    shape: tuple[int, int, int],
    heads: Heads,
    start: int,
    out: Bytes,
    labels: Floats,
) -> bool:
    """out (N, bytes) with heads, labels (N,) <- messages of raw uint8 pixels, each drawn as its sample.

    The pixels begin at byte `start` of a row. False, with some of all overwritten, where a message holds
    anything else or does not fit the settings.
    """
    channels, height, width = shape
    fields = np.empty(COLUMNS, np.int64)
    for n in range(addresses.shape[0]):
        load_ahead(addresses, lengths, n)
        scan_one(addresses[n], lengths[n], fields)
        if not fits_batch(fields, channels, height, width, crop_h, crop_w, mean_image):
            return False
        labels[n] = fields[LABEL]
        whole = (channels, fields[HEIGHT], fields[WIDTH])
        src = carray(pointer(addresses[n] + fields[DATA_START]), whole, np.uint8)
        _cut(
            src,
            samples[n],
            key,
            train,
            mirror,
            shape,
            heads[n],
            out[n, start : start + channels * height * width],
        )
    return True


@compiled
def rows_from_memory(
    addresses: Table,
    whole: tuple[int, int, int],
    samples: Table,
    key: Words,
    train: bool,
    mirror: bool,
    shape: tuple[int, int, int],
    heads: Heads,
    start: int,
    out: Bytes,
) -> None:
    """`raw_rows` for uint8 pixels of shape `whole` at each address."""
    channels, height, width = shape
    for n in range(addresses.shape[0]):
        src = carray(pointer(addresses[n]), whole, np.uint8)
        _cut(
            src,
            samples[n],
            key,
            train,
            mirror,
            shape,
            heads[n],
            out[n, start : start + channels * height * width],
        )


@compiled
def _cut(
    src: Bytes,
    sample: int,
    key: Words,
    train: bool,
    mirror: bool,
    shape: tuple[int, int, int],
    head: Heads,
    out: Bytes,
) -> None:
    channels, height, width = shape
    top, left, turned = place_of(sample, key, train, mirror, src.shape[1] - height, src.shape[2] - width)
    head[0], head[1], head[2], head[3] = turned, top, left, 0
    if src.size == out.size:
        flat = src.reshape(src.size)
        for i in range(out.size):
            out[i] = flat[i]
        return
    for c in range(channels):
        for y in range(height):
            row = src[c, top + y, left : left + width]
            at = (c * height + y) * width
            target = out[at : at + width]
            for x in range(width):
                target[x] = row[x]
