"""The handwritten digits that scikit-learn ships, 1,797 of 8 x 8, for a first run without a download."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt

from dtrain.data.convert.lmdb_writer import Progress, write_lmdb
from dtrain.data.convert.order import shuffled_order
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.data.datum import encode_pixels
from dtrain.data.decode import opencv
from dtrain.errors import DataError

_BOX, _FRAME = 20, 28  # MNIST's digits fill a box of 20 x 20 in the middle of 28 x 28
_TEST_EVERY = 5  # of each class, every fifth image is for testing


def convert_digits(
    out: str,
    *,
    seed: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write OUT/digits_train_lmdb and OUT/digits_test_lmdb: 28 x 28 grey, drawn as MNIST's are.

    The split is by class: of the images of a digit, in the set's order, the fifth, tenth, ... are for
    testing. Returns the number of records of each path written.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "digits: scikit-learn must be installed, got no such package; pip install 'dtrain[demo]'"
        ) from error
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    for_test = np.zeros(len(labels), np.bool_)
    for label in np.unique(labels):
        for_test[np.flatnonzero(labels == label)[_TEST_EVERY - 1 :: _TEST_EVERY]] = True
    sets = {
        os.path.join(out, "digits_train_lmdb"): np.flatnonzero(~for_test),
        os.path.join(out, "digits_test_lmdb"): np.flatnonzero(for_test),
    }
    for path in sets:
        refuse_existing(path, overwrite)
    written = {}
    for path, members in sets.items():
        order = members[shuffled_order(len(members), seed)].tolist()
        records = (
            (b"%08d" % n, encode_pixels(_as_mnist(bunch.images[i])[None], int(labels[i])))
            for n, i in enumerate(order)
        )
        written[path] = write_lmdb(path, records, overwrite=overwrite, progress=progress)
    return written


def _as_mnist(image: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """8 x 8 of 0..16 -> 28 x 28 of 0..255, smoothly enlarged into the box in the middle."""
    grown = opencv().resize(image.astype(np.float32), (_BOX, _BOX), interpolation=opencv().INTER_CUBIC)
    framed = np.zeros((_FRAME, _FRAME), np.uint8)
    start = (_FRAME - _BOX) // 2
    framed[start : start + _BOX, start : start + _BOX] = np.clip(np.rint(grown * (255 / 16)), 0, 255)
    return framed
