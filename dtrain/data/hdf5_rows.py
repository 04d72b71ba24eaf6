"""Rows of HDF5 files that a list names: every dataset of a name is one array, cut into files along axis 0."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from typing import Any, final

import numpy as np
import numpy.typing as npt

from dtrain.data.file_length import FileLength
from dtrain.data.sampler import Numbers, epoch_of, permuted
from dtrain.errors import BackendError, DataError

CHUNK_CACHE_BYTES = 64 << 20  # rows of a batch that share a chunk are decompressed once
SLICE_BYTES = 32 << 20
"""Of a dataset that are in memory at a time beside batch and chunk cache, or one row if that is more."""

_SPAN = 2  # rows that a slice reads at most for each row that is wanted


@cache
def hdf5() -> Any:
    """The h5py module."""
    try:
        import h5py
    except ImportError as error:
        raise BackendError(f"HDF5 files: h5py must be installed, got {error}; pip install h5py") from None
    return h5py


@final
class Hdf5Rows:
    """Rows 0..len-1 in the order of the list; one file is open at a time and only wanted rows are read."""

    def __init__(self, source: str, names: Sequence[str], files: Sequence[str] | None = None) -> None:
        """names: the datasets, as many rows in each; files: those that the text file `source` names."""
        self.name = source
        self.names = tuple(names)
        self._is_list = files is None
        self.files = _read_list(source) if files is None else list(files)
        self.shapes: list[tuple[int, ...]] = []
        """Of one row of each dataset."""
        self.types: list[np.dtype[Any]] = []
        """Of the values of each dataset of the first file."""
        counts = []
        for path in self.files:
            with self._open(path) as file:
                counts.append(self._check(file, path))
        self.ends: Numbers = np.cumsum(np.array(counts, np.int64))
        self._length: FileLength | None = None
        self._file: Any = None

    def _check(self, file: Any, path: str) -> int:
        """Number of rows of a file whose datasets are as those of the files before."""
        rows = -1
        shapes = []
        for name in self.names:
            if name not in file:
                raise DataError(
                    f"{path}: a dataset must be named as the top, got no "
                    f'"{name}" (datasets: {", ".join(sorted(file)) or "none"})'
                )
            dataset = file[name]
            if getattr(dataset, "dtype", np.dtype("O")).kind not in "fiub" or len(dataset.shape) < 1:
                raise DataError(
                    f'{path}: dataset "{name}" must hold numbers on at least 1 axis, got {dataset}'
                )
            if rows not in (-1, dataset.shape[0]):
                raise DataError(
                    f"{path}: all datasets must have the same number of rows, got {dataset.shape[0]} of "
                    f'"{name}" after {rows} of "{self.names[0]}"'
                )
            rows = dataset.shape[0]
            shapes.append(tuple(dataset.shape[1:]))
        if self.shapes and shapes != self.shapes:
            raise DataError(
                f"{path}: rows must have the shapes of the files before it, {self.shapes}, got {shapes}"
            )
        self.types = self.types or [file[name].dtype for name in self.names]
        self.shapes = shapes
        return rows

    def __len__(self) -> int:
        return int(self.ends[-1])

    def in_order(self, samples: Numbers, shuffle_seed: int | None) -> Numbers:
        """The row behind each sample; shuffled, every epoch mixes the files, and the rows inside each.

        Samples that follow each other are of one file, so that reading stays near: Caffe's shuffle.
        """
        epochs, positions = epoch_of(samples, len(self))
        if shuffle_seed is None:
            return positions
        starts = self.ends - np.diff(self.ends, prepend=0)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs).tolist():
            order = permuted(np.arange(len(self.files)), len(self.files), shuffle_seed, epoch)
            counts = np.diff(self.ends, prepend=0)[order]
            ends = np.cumsum(counts)
            inside = np.flatnonzero(epochs == epoch)
            turns = np.searchsorted(ends, positions[inside], side="right")
            for turn in np.unique(turns).tolist():
                mine = inside[turns == turn]
                file = int(order[turn])
                first = int(ends[turn] - counts[turn])
                mixed = permuted(positions[mine] - first, int(counts[turn]), shuffle_seed + 1 + file, epoch)
                rows[mine] = starts[file] + mixed
        return rows

    def read(self, rows: Numbers, out: Sequence[npt.NDArray[Any]]) -> None:
        """out[i] (N, ...) <- those rows of dataset i."""
        files = np.searchsorted(self.ends, rows, side="right")
        for number in np.unique(files).tolist():
            places = np.flatnonzero(files == number)
            start = 0 if number == 0 else int(self.ends[number - 1])
            places = places[np.argsort(rows[places], kind="stable")]
            file = self._opened(self.files[number])
            try:
                for name, array in zip(self.names, out, strict=True):
                    _read(file[name], rows[places] - start, places, array)
            except (OSError, KeyError) as error:  # KeyError: the dataset itself is not found again
                raise DataError(
                    f"{self.name}: rows of {self.files[number]} must be readable, got {error}; "
                    "copy or convert the file again"
                ) from error

    def _opened(self, path: str) -> Any:
        if self._length is None or path != self._length.path:
            self.close()
            self._file = self._open(path)
            self._length = FileLength(self.name, path)
        else:
            self._length.check()
        return self._file

    def _open(self, path: str) -> Any:
        try:
            return hdf5().File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            if not self._is_list:
                raise DataError(f"{path}: must be a readable HDF5 file, got {why}") from error
            raise DataError(
                f"{self.name}: must list HDF5 files, got {path}: {why} (seen from {os.getcwd()})"
            ) from error

    def close(self) -> None:
        """Give back the open file; `read` opens it again."""
        if self._file is not None:
            self._file.close()
        self._file, self._length = None, None


def _read(dataset: Any, wanted: Numbers, places: Numbers, out: npt.NDArray[Any]) -> None:
    """out[places] <- the rows wanted, in increasing order, SLICE_BYTES of the file at a time."""
    row_bytes = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    step = max(1, SLICE_BYTES // (_SPAN * row_bytes))
    for start in range(0, len(wanted), step):
        part = slice(start, start + step)
        out[places[part]] = _rows_of(dataset, wanted[part])


def _rows_of(dataset: Any, wanted: Numbers) -> npt.NDArray[Any]:
    """Rows in increasing order: a plain slice where they lie close, since a selection is slow."""
    first, last = int(wanted[0]), int(wanted[-1])
    if last - first < _SPAN * len(wanted):
        near: npt.NDArray[Any] = dataset[first : last + 1]
        return near[wanted - first]
    different, back = np.unique(wanted, return_inverse=True)
    chosen: npt.NDArray[Any] = dataset[different]
    return chosen[back]


def _read_list(source: str) -> list[str]:
    try:
        with open(source, encoding="utf-8", errors="surrogateescape") as file:
            files = file.read().split()
    except OSError as error:
        raise DataError(
            f"{source}: must be a readable list of HDF5 files, got {error.strerror} (seen from {os.getcwd()})"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: must be a list of HDF5 files, got {error}") from error
    if not files:
        raise DataError(f"{source}: must list at least one HDF5 file, got an empty list")
    return files
