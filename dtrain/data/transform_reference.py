"""The definition of what happens to one image's pixels, in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.record import Pixels


def transform_pixels(
    src: Pixels,
    top: int,
    left: int,
    mirror: bool,
    mean_image: npt.NDArray[np.float32],
    means: npt.NDArray[np.float32],
    scale: float,
    out: npt.NDArray[np.float32],
) -> None:
    """out (C, h, w) <- (src - mean) * scale over the window of src (C, H, W) at (top, left).

    The mean image, if there is one, is cut at the same place as the pixels; then the result is mirrored.
    Source: Caffe's DataTransformer.
    """
    _, height, width = out.shape
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    mean = mean_image[window] if mean_image.size else means[:, None, None]
    result = (src[window].astype(np.float32) - mean) * np.float32(scale)
    out[...] = result[:, :, ::-1] if mirror else result


def resized_pixels(src: Pixels, height: int, width: int) -> npt.NDArray[np.float32]:
    """src (C, H, W) as (C, height, width), bilinear, centres of pixels on centres; edges go on outwards."""
    return _along(_along(src.astype(np.float32), 1, height), 2, width)


def _along(values: npt.NDArray[np.float32], axis: int, num: int) -> npt.NDArray[np.float32]:
    source = values.shape[axis]
    places = np.clip((np.arange(num) + 0.5) * (source / num) - 0.5, 0, source - 1)
    first = np.minimum(places.astype(np.int64), max(source - 2, 0))
    shape = [1, 1, 1]
    shape[axis] = num
    shares = (places - first).astype(np.float32).reshape(shape)
    following = values.take(np.minimum(first + 1, source - 1), axis)
    mixed: npt.NDArray[np.float32] = values.take(first, axis) * (1 - shares) + following * shares
    return mixed
