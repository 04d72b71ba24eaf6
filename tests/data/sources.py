"""Small databases for tests."""

import cv2
import numpy as np

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_pixels


def images(num, shape=(3, 8, 9), seed=0):
    """Random uint8 pixels (num, C, H, W)."""
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), dtype=np.uint8)


def lmdb_of(path, pixels, key="{:08d}"):
    """An LMDB of those images, labelled 0, 1, 2, ...; returns its path."""
    records = ((key.format(n).encode(), encode_pixels(image, n)) for n, image in enumerate(pixels))
    write_lmdb(str(path), records)
    return str(path)


def jpeg_of(pixels, quality=95):
    """The bytes of a JPEG of (3, H, W) pixels."""
    return cv2.imencode(".jpg", pixels.transpose(1, 2, 0), [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
