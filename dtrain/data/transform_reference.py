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
