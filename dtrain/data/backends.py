"""Which class reads which backend, and what a source is by what lies there."""

from __future__ import annotations

import os
from typing import Final

from dtrain.data.listing import ARROW_SUFFIXES, LEVELDB_FILE, LMDB_FILE, names_in
from dtrain.data.reader import Reader
from dtrain.errors import DataError, unknown_name

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
