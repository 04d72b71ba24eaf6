"""A new LevelDB, whole or absent: written beside its place, compacted, then renamed. Needs plyvel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dtrain.data.convert.lmdb_writer import Progress
from dtrain.data.convert.whole_folder import whole_folder
from dtrain.data.leveldb_reader import leveldb

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
    with whole_folder(path, overwrite, module.Error) as (whole, _):
        database = module.DB(whole, create_if_missing=True)
        try:
            num = _put_all(database, records, progress)
            database.compact_range()
        finally:
            database.close()
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
