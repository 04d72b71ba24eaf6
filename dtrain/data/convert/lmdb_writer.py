"""A new LMDB, whole or absent: written beside its place, compacted, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import lmdb

from dtrain.errors import DataError

Progress = Callable[[int], None]
"""Called with the number of records written so far, after every thousand and at the end."""

_FIRST_MAP_BYTES = 64 << 20
_COMMIT_RECORDS = 1000  # as Caffe's converters


def write_lmdb(
    path: str,
    records: Iterable[tuple[bytes, bytes]],
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write keys and values into the folder `path`; keys must ascend. Returns how many there were."""
    refuse_existing(path, overwrite)
    parent = os.path.dirname(os.path.abspath(path))
    place = ""
    try:
        os.makedirs(parent, exist_ok=True)
        place = tempfile.mkdtemp(".part", os.path.basename(os.path.abspath(path)) + ".", parent)
        part, compact, old = (os.path.join(place, name) for name in ("part", "whole", "old"))
        os.mkdir(part)
        os.mkdir(compact)
        environment = lmdb.open(part, map_size=_FIRST_MAP_BYTES, sync=False, metasync=False, lock=False)
        try:
            num = _put_all(environment, records, progress)
            environment.copy(compact, compact=True)
        finally:
            environment.close()
        sync(os.path.join(compact, "data.mdb"))
        refuse_existing(path, overwrite)  # another writer may have been quicker
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(compact, path)
        sync(parent)
    except (OSError, lmdb.Error) as error:
        raise DataError(f"{path}: must be writable, got {error}{room(parent)}") from error
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)
    return num


def room(folder: str) -> str:
    """How much may still be written: LMDB says of a full disk no more than that a write failed."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"; {free / 1e6:,.0f} MB are free there"


def refuse_existing(path: str, overwrite: bool) -> None:
    """Raise if something is at `path` and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path}: must not exist yet, got an existing one; pass --overwrite to replace it")


def _put_all(environment: Any, records: Iterable[tuple[bytes, bytes]], progress: Progress | None) -> int:
    num = 0
    pending: list[tuple[bytes, bytes]] = []
    for record in records:
        pending.append(record)
        if len(pending) == _COMMIT_RECORDS:
            num = _commit(environment, pending, num, progress)
    if pending or num == 0:
        num = _commit(environment, pending, num, progress)
    return num


def _commit(environment: Any, pending: list[tuple[bytes, bytes]], num: int, progress: Progress | None) -> int:
    while True:
        try:
            with environment.begin(write=True) as txn:
                for key, value in pending:
                    txn.put(key, value, append=True)
            break
        except lmdb.MapFullError:
            environment.set_mapsize(2 * environment.info()["map_size"])
    num += len(pending)
    pending.clear()
    if progress is not None:
        progress(num)
    return num


def sync(path: str) -> None:
    """Have what was written to a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
