"""HDF5 files as records: datasets `data` (n, C, H, W) and `label` (n,) or (n, L), as HDF5Data serves them."""

from __future__ import annotations

import os
import threading
from typing import final

import numpy as np

from dtrain.data.hdf5_rows import Hdf5Rows
from dtrain.data.listing import names_in
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.errors import DataError

SUFFIXES = (".h5", ".hdf5")


def holds_hdf5(source: str) -> bool:
    """Whether the source is an HDF5 file, a folder of them, or a text file that lists them."""
    if os.path.isdir(source):
        return any(name.endswith(SUFFIXES) for name in names_in(source))
    if not source.endswith((".txt", ".lst")) or not os.path.isfile(source):
        return source.endswith(SUFFIXES)
    try:
        with open(source, encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip().endswith(SUFFIXES)
    except OSError as error:
        raise DataError(f"{source}: must be a readable list, got {error.strerror}") from error


@final
class Hdf5Reader(Reader):
    """Rows in the order of the files; one is read at a time."""

    def __init__(self, source: str) -> None:
        self.name = source
        files = None
        if os.path.isdir(source):
            files = [os.path.join(source, name) for name in names_in(source) if name.endswith(SUFFIXES)]
            if not files:
                raise DataError(f"{source}: must hold {' or '.join(SUFFIXES)} files, got none")
        elif source.endswith(SUFFIXES):
            files = [source]
        self._rows = Hdf5Rows(source, ("data", "label"), files)
        if len(self._rows) == 0:
            raise DataError(f"{source}: must hold at least one row, got none")
        shape, label_shape = self._rows.shapes
        if len(shape) != 3 or len(label_shape) > 1:
            raise DataError(
                f"{source}: data must be (n, channels, height, width) and label (n,) or (n, labels), "
                f"got (n, {', '.join(map(str, shape))}) and (n, {', '.join(map(str, label_shape))})"
            )
        kind = np.dtype(np.uint8) if self._rows.types[0] == np.uint8 else np.dtype(np.float32)
        self._image = np.empty((1, *shape), kind)
        self._label = np.empty((1, *label_shape), np.float32)
        self._reading = threading.Lock()

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, index: int) -> Record:
        with self._reading:
            self._rows.read(np.array([index]), [self._image, self._label])
            return Record(self.where(index), tuple(self._label.ravel().tolist()), self._image[0].copy())

    def where(self, index: int) -> str:
        number = int(np.searchsorted(self._rows.ends, index, side="right"))
        start = 0 if number == 0 else int(self._rows.ends[number - 1])
        return f"{self._rows.files[number]}: row {index - start} (record {index})"

    def close(self) -> None:
        with self._reading:
            self._rows.close()
