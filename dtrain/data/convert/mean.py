"""The mean image of a database, as Caffe's compute_image_mean writes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dtrain.data.backends import open_reader
from dtrain.data.convert.lmdb_writer import Progress
from dtrain.data.decode import decode_image
from dtrain.data.mean_file import write_mean
from dtrain.errors import DataError


def compute_mean(
    source: str, out: str = "", *, backend: str = "LMDB", progress: Progress | None = None
) -> npt.NDArray[np.float32]:
    """The mean (C, H, W) over all records, written to `out` if given; sums are exact for uint8 pixels."""
    reader = open_reader(source, backend)
    try:
        num = len(reader)
        total: npt.NDArray[np.float64] | None = None
        for index in range(num):
            record = reader.read(index)
            pixels = record.pixels
            if pixels is None:
                assert record.encoded is not None
                pixels = decode_image(record.encoded, "as stored", record.where)
            if total is None:
                total = np.zeros(pixels.shape, np.float64)
            if pixels.shape != total.shape:
                raise DataError(
                    f"{record.where}: all images must have the same shape for a mean, "
                    f"got {pixels.shape} after {total.shape}; resize when converting"
                )
            total += pixels
            if progress is not None and ((index + 1) % 1000 == 0 or index + 1 == num):
                progress(index + 1)
    finally:
        reader.close()
    assert total is not None
    mean = (total / num).astype(np.float32)
    if out:
        write_mean(out, mean)
    return mean
