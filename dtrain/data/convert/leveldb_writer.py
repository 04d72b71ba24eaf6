"""A new LevelDB, whole or absent: written beside its place, compacted, then renamed. Needs plyvel."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from typing import Any

from dtrain.data.convert.lmdb_writer import Progress, refuse_existing, room, sync
from dtrain.data.leveldb_reader import leveldb
from dtrain.errors import DataError

_BATCH_RECORDS = 1000  # as Caffe's converters


def write_leveldb(
    path: str,
    records: Iterable[tuple[bytes, bytes]],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write keys and values into the folder `path`, read in the order of the keys. Returns how many."""
    module = leveldb()
    refuse_existing(path, overwrite)
    parent = os.path.dirname(os.path.abspath(path))
    place = ""
    try:
        os.makedirs(parent, exist_ok=True)
        place = tempfile.mkdtemp(".part", os.path.basename(os.path.abspath(path)) + ".", parent)
        whole, old = os.path.join(place, "whole"), os.path.join(place, "old")
        database = module.DB(whole, create_if_missing=True)
        try:
            num = _put_all(database, records, progress)
            database.compact_range()
        finally:
            database.close()
        for name in os.listdir(whole):
            sync(os.path.join(whole, name))
        refuse_existing(path, overwrite)  # another writer may have been quicker
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(whole, path)
        sync(parent)
    except (OSError, module.Error) as error:
        raise DataError(f"{path}: must be writable, got {error}{room(parent)}") from error
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
    return num


def _put_all(database: Any, records: Iterable[tuple[bytes, bytes]], progress: Progress | None) -> int:
    num = 0
    batch = database.write_batch()
    for key, value in records:
        batch.put(key, value)
        num += 1
        if num % _BATCH_RECORDS == 0:
            batch.write()
            batch = database.write_batch()
            if progress is not None:
                progress(num)
    batch.write()
    if progress is not None:
        progress(num)
    return num
