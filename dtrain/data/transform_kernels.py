"""Crop, mirror, mean and scale of one image or of many; `transform_reference` defines the result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import carray, compiled, pointer
from dtrain.data.datum_scan import Table
from dtrain.data.hashing import Words
from dtrain.data.record import Pixels
from dtrain.data.sample_draws import place_of

Floats = npt.NDArray[np.float32]


@compiled
def planar(
    src: Pixels,
    top: int,
    left: int,
    mirror: bool,
    mean_image: Floats,
    means: Floats,
    scale: float,
    out: Floats,
) -> None:
    """out (C, h, w) <- (src - mean) * scale at (top, left) of src (C, H, W), mirrored or not.

    mean_image is (C, H, W), or empty: then means holds one value a channel.
    """
    channels, height, width = out.shape
    factor = np.float32(scale)
    if not mirror and height == src.shape[1] and width == src.shape[2]:
        size = height * width  # one long loop, where rows of 28 would spend half of their time on ends
        for c in range(channels):
            plane, target = src[c].reshape(size), out[c].reshape(size)
            if mean_image.size > 0:
                mean_plane = mean_image[c].reshape(size)
                for i in range(size):
                    target[i] = (np.float32(plane[i]) - mean_plane[i]) * factor
            else:
                mean = means[c]
                for i in range(size):
                    target[i] = (np.float32(plane[i]) - mean) * factor
        return
    last = width - 1  # as an unsigned index it cannot count from the end, so the loops become vector code
    for c in range(channels):
        mean = means[c]
        for y in range(height):
            row = src[c, top + y, left : left + width]
            target = out[c, y]
            if mean_image.size > 0:
                mean_row = mean_image[c, top + y, left : left + width]
                if mirror:
                    for x in range(width):
                        at = np.uint64(last - x)
                        target[x] = (np.float32(row[at]) - mean_row[at]) * factor
                else:
                    for x in range(width):
                        target[x] = (np.float32(row[x]) - mean_row[x]) * factor
            elif mirror:
                for x in range(width):
                    target[x] = (np.float32(row[np.uint64(last - x)]) - mean) * factor
            else:
                for x in range(width):
                    target[x] = (np.float32(row[x]) - mean) * factor


@compiled
def planar_from_memory(
    addresses: Table,
    shape: tuple[int, int, int],
    samples: Table,
    key: Words,
    train: bool,
    mirror: bool,
    mean_image: Floats,
    means: Floats,
    scale: float,
    out: Floats,
) -> None:
    """`planar` for raw uint8 pixels (C, H, W) at each address, drawn as those samples."""
    spare_h, spare_w = shape[1] - out.shape[2], shape[2] - out.shape[3]
    for n in range(addresses.shape[0]):
        src = carray(pointer(addresses[n]), shape, np.uint8)
        top, left, turned = place_of(samples[n], key, train, mirror, spare_h, spare_w)
        planar(src, top, left, turned, mean_image, means, scale, out[n])


@compiled
def interleaved(
    src: Pixels,
    top: int,
    left: int,
    mirror: bool,
    mean_image: Floats,
    means: Floats,
    scale: float,
    out: Floats,
) -> None:
    """`planar` for three channels that alternate in memory, as image decoders write them: src (H, W, 3)."""
    _, height, width = out.shape
    factor = np.float32(scale)
    mean_0, mean_1, mean_2 = means[0], means[1], means[2]
    first, step = (width - 1, -1) if mirror else (0, 1)
    for y in range(height):
        row = src[top + y, left : left + width]
        out_0, out_1, out_2 = out[0, y], out[1, y], out[2, y]
        if mean_image.size > 0:
            means_0 = mean_image[0, top + y, left : left + width]
            means_1 = mean_image[1, top + y, left : left + width]
            means_2 = mean_image[2, top + y, left : left + width]
            for x in range(width):
                to = first + step * x
                out_0[to] = (np.float32(row[x, 0]) - means_0[x]) * factor
                out_1[to] = (np.float32(row[x, 1]) - means_1[x]) * factor
                out_2[to] = (np.float32(row[x, 2]) - means_2[x]) * factor
        else:
            for x in range(width):
                to = first + step * x
                out_0[to] = (np.float32(row[x, 0]) - mean_0) * factor
                out_1[to] = (np.float32(row[x, 1]) - mean_1) * factor
                out_2[to] = (np.float32(row[x, 2]) - mean_2) * factor
