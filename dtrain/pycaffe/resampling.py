"""Images to another size, as the libraries that pycaffe used sample them.

Sources: skimage.transform.resize with mode "constant", of the releases before it learnt to blur (0.9 to
0.13), and scipy.ndimage.zoom.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.data.decode import opencv
from dtrain.errors import ConfigError

Image: TypeAlias = NDArray[np.float32]
Places: TypeAlias = NDArray[np.float64]

NEAREST, LINEAR, CUBIC = 0, 1, 3
ORDERS: Final = (NEAREST, LINEAR, CUBIC)


def centred(size: int, new_size: int) -> Places:
    """Where the centres of the new pixels lie between those of the old ones."""
    return (np.arange(new_size, dtype=np.float64) + 0.5) * (size / new_size) - 0.5


def corner_to_corner(size: int, new_size: int) -> Places:
    """The first new pixel on the first old one, the last on the last."""
    return np.arange(new_size, dtype=np.float64) * ((size - 1) / max(new_size - 1, 1))


def sample(image: Image, rows: Places, columns: Places, order: int) -> Image:
    """The (H, W, K) image at these places; outside of it is zero."""
    return _along(_along(image, rows, 0, order), columns, 1, order)


def _along(image: Image, places: Places, axis: int, order: int) -> Image:
    last = image.shape[axis] - 1
    if order == NEAREST:
        return image.take(np.clip(np.floor(places + 0.5), 0, last).astype(np.intp), axis)
    low = np.floor(places).astype(np.intp)
    shape = [1] * image.ndim
    shape[axis] = -1
    result: Any = 0
    for index, weight in ((low, 1 - (places - low)), (low + 1, places - low)):
        inside = weight * ((index >= 0) & (index <= last))
        result = result + image.take(np.clip(index, 0, last), axis) * inside.astype(np.float32).reshape(shape)
    return np.asarray(result, np.float32)


def resize(image: Image, height: int, width: int, order: int) -> Image:
    """By the rule of pycaffe: a grey or colour image by centres, any other number of channels by corners.

    Cubic is OpenCV's.
    """
    if order not in ORDERS:
        raise ConfigError(
            f"resize_image: interp_order must be one of {', '.join(map(str, ORDERS))}, got {order}"
        )
    if order == CUBIC:
        resized = opencv().resize(image, (width, height), interpolation=opencv().INTER_CUBIC)
        return np.asarray(resized, np.float32).reshape(height, width, image.shape[2])
    old_height, old_width, channels = image.shape
    places = centred if channels in (1, 3) else corner_to_corner
    if channels not in (1, 3):
        return sample(image, places(old_height, height), places(old_width, width), order)
    low = np.float32(image.min())
    return sample(image - low, places(old_height, height), places(old_width, width), order) + low
