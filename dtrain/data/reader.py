"""What a source of records can do, and which class reads which backend."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, Final, NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.datum_scan import Messages
from dtrain.data.listing import names_in
from dtrain.data.record import Record
from dtrain.errors import DataError, unknown_name

Indices = npt.NDArray[np.int64]


class Reader(ABC):
    """Records 0..len-1 in an order that never changes; every method may be called from many threads."""

    name: str
    """The source, as errors name it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Record:
        """The record, whose arrays and bytes stay valid after the reader is closed."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Source and key of a record, for errors."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the reader holds; calling it again does nothing."""


class DatumReader(Reader):
    """A reader whose records are stored as Datum messages, one after the other in the file's own memory."""

    @abstractmethod
    def datums(self, indices: Indices) -> AbstractContextManager[Messages]:
        """The serialised messages, without a copy: they are valid inside the `with` block only."""


@final
class Columns(NamedTuple):
    """Some records: their labels, and either where pixels of uint8 lie or an array for each image."""

    labels: npt.NDArray[np.float32]
    """(N, L)"""
    images: list[npt.NDArray[Any]]
    """Of each record the encoded bytes (1-D) or the pixels (C, H, W); empty where `addresses` says it."""
    addresses: Indices
    """Of the first byte of each record's pixels."""
    shape: tuple[int, ...]
    """(C, H, W) of the pixels."""
    alive: object
    """What must be kept meanwhile."""


class ColumnReader(Reader):
    """A reader whose records lie in columns, of which it gives many at once."""

    @abstractmethod
    def columns(self, indices: Indices, *, as_arrays: bool = False) -> AbstractContextManager[Columns]:
        """The records, valid inside the `with` block only; with `as_arrays` all `images` are there."""


LMDB_FILE, LEVELDB_FILE = "data.mdb", "CURRENT"
ARROW_SUFFIXES = (".arrow", ".feather", ".parquet")
_WHAT: Final = {
    "LMDB": "an LMDB",
    "LEVELDB": "a LevelDB",
    "ARROW": "Arrow or Parquet files",
    "HDF5": "HDF5 files",
}
"""The backends, and what each reads."""


def shards_of(source: str) -> list[str]:
    """The LMDBs in a folder that is none itself, in the order of their names."""
    if not os.path.isdir(source) or os.path.exists(os.path.join(source, LMDB_FILE)):
        return []
    folders = (os.path.join(source, name) for name in names_in(source))
    return [folder for folder in folders if os.path.exists(os.path.join(folder, LMDB_FILE))]


def backend_of(source: str) -> str:
    """What a source is, by what lies there; ARROW where that cannot be seen."""
    return recognised(source) or "ARROW"


def recognised(source: str) -> str:
    """What lies there, or nothing where that cannot be seen."""
    if os.path.isfile(os.path.join(source, LMDB_FILE)) or shards_of(source) or source.endswith(".mdb"):
        return "LMDB"
    if os.path.isfile(os.path.join(source, LEVELDB_FILE)):
        return "LEVELDB"
    from dtrain.data.hdf5_reader import holds_hdf5

    if holds_hdf5(source):
        return "HDF5"
    names = names_in(source) if os.path.isdir(source) else [source]
    return "ARROW" if any(name.endswith(ARROW_SUFFIXES) for name in names) else ""


def open_reader(source: str, backend: str) -> Reader:
    """Open a database by the name that data_param.backend has: LMDB, ARROW or LEVELDB; or HDF5 files."""
    try:
        return _open(source, backend)
    except DataError as error:
        found = recognised(source) if os.path.exists(source) else ""
        if found in ("", backend) or backend not in _WHAT:
            raise
        default = " (the default when data_param names none)" if backend == "LEVELDB" else ""
        remedy = "read it by a layer of type HDF5Data" if found == "HDF5" else f"set `backend: {found}`"
        raise DataError(
            f"{source}: backend must be {found} for {_WHAT[found]}, got {backend}{default}; {remedy}"
        ) from error


def _open(source: str, backend: str) -> Reader:
    # The backends import large libraries; a job loads the one that it reads.
    if backend == "LMDB":
        from dtrain.data.lmdb_reader import LmdbReader
        from dtrain.data.sharded_reader import ShardedReader

        shards = shards_of(source)
        return (
            ShardedReader(source, [LmdbReader(shard) for shard in shards]) if shards else LmdbReader(source)
        )
    if backend == "ARROW":
        from dtrain.data.arrow_reader import ArrowReader

        return ArrowReader(source)
    if backend == "LEVELDB":
        from dtrain.data.leveldb_reader import LevelDbReader

        return LevelDbReader(source)
    if backend == "HDF5":
        from dtrain.data.hdf5_reader import Hdf5Reader

        return Hdf5Reader(source)
    raise DataError(f"{source}: {unknown_name('backend', backend, _WHAT)}")
