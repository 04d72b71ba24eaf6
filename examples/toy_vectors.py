"""Vectors of two classes, for configs/hdf5_classification.

Two clouds of points that overlap a little, in HDF5 files: `data` (N, 4) and `label` (N,).

    python examples/toy_vectors.py data/hdf5_classification
    dtrain configs/hdf5_classification/solver.prototxt
"""

from __future__ import annotations

import sys
from pathlib import Path

import h5py
import numpy as np

CENTRES = np.array([[-1.0, 0.5, 0.0, 0.2], [1.0, -0.5, 0.4, 0.0]])
SPREAD = 0.9


def write(folder: Path, num_train: int = 7500, num_test: int = 2500) -> None:
    """train.h5 and test.h5, and the lists of files that HDF5Data layers read."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", num_train), ("test", num_test)):
        label = rng.integers(0, 2, count)
        data = CENTRES[label] + SPREAD * rng.standard_normal((count, 4))
        with h5py.File(folder / f"{part}.h5", "w") as file:
            file["data"] = data.astype(np.float32)
            file["label"] = label.astype(np.float32)
        (folder / f"{part}.txt").write_text(f"{folder / part}.h5\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
