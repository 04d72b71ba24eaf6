"""A new LMDB, whole or absent: written beside its place, compacted, then renamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import lmdb

from dtrain.data.convert.whole_folder import whole_folder

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
    with whole_folder(path, overwrite, lmdb.Error) as (whole, spare):
        environment = lmdb.open(spare, map_size=_FIRST_MAP_BYTES, sync=False, metasync=False, lock=False)
        try:
            num = _put_all(environment, records, progress)
            environment.copy(whole, compact=True)
        finally:
            environment.close()
    return num


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
