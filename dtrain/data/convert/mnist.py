"""MNIST's idx files to Caffe's mnist_train_lmdb and mnist_test_lmdb.

Source: the format as described with the data set: a big-endian magic number (2051 images, 2049 labels), the
extents, then bytes.
"""

from __future__ import annotations

import gzip
import os
import zlib

import numpy as np
import numpy.typing as npt

from dtrain.data.convert.lmdb_writer import Progress, write_lmdb
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.data.datum import encode_pixels
from dtrain.errors import DataError

_MAGIC = {3: 2051, 1: 2049}
_SETS = (
    ("train", "train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    ("test", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
)


def convert_mnist(
    folder: str, out: str, *, overwrite: bool = False, progress: Progress | None = None
) -> dict[str, int]:
    """Write OUT/mnist_train_lmdb and OUT/mnist_test_lmdb from the idx files (or .gz) in a folder.

    Returns the number of records of each path written.
    """
    paths = {name: os.path.join(out, f"mnist_{name}_lmdb") for name, _, _ in _SETS}
    for path in paths.values():
        refuse_existing(path, overwrite)
    loaded = []
    for name, image_file, label_file in _SETS:
        images, labels = read_idx(_find(folder, image_file), 3), read_idx(_find(folder, label_file), 1)
        if len(images) != len(labels):
            raise DataError(
                f"{folder}: {image_file} and {label_file} must number the same, "
                f"got {len(images)} and {len(labels)}"
            )
        loaded.append((paths[name], images, labels))
    written = {}
    for path, images, labels in loaded:
        records = (
            (b"%08d" % n, encode_pixels(image[None], int(label)))
            for n, (image, label) in enumerate(zip(images, labels, strict=True))
        )
        written[path] = write_lmdb(path, records, overwrite=overwrite, progress=progress)
    return written


def read_idx(path: str, ndim: int) -> npt.NDArray[np.uint8]:
    """The array of an idx file, gzipped or not."""
    try:
        with open(path, "rb") as file:
            content = file.read()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: must be readable, got {error}") from error
    whole = len(content) >= 4 * (ndim + 1)
    header = np.frombuffer(content[: 4 * (ndim + 1)], ">u4") if whole else np.zeros(0, ">u4")
    if not whole or int(header[0]) != _MAGIC[ndim]:
        got = int(header[0]) if whole else f"a file of {len(content)} bytes"
        raise DataError(f"{path}: must be an idx file with magic number {_MAGIC[ndim]}, got {got}")
    shape = tuple(int(extent) for extent in header[1:])
    values = np.frombuffer(content, np.uint8, offset=4 * (ndim + 1))
    if values.size != int(np.prod(shape)):
        raise DataError(f"{path}: must hold {int(np.prod(shape))} values after its header, got {values.size}")
    return values.reshape(shape)


def _find(folder: str, name: str) -> str:
    for candidate in (name, name + ".gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        path = os.path.join(folder, candidate)
        if os.path.exists(path):
            return path
    raise DataError(
        f"{folder}: must hold {name} or {name}.gz, got neither; the four files are at "
        "https://ossci-datasets.s3.amazonaws.com/mnist/"
    )
