"""LevelDB as Caffe writes it: Datum messages in the order of their keys. Needs the package plyvel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from typing import Any, final

import numpy as np

from dtrain.data.datum import decode_datum
from dtrain.data.datum_scan import Messages, located
from dtrain.data.listing import LEVELDB_FILE
from dtrain.data.reader import DatumReader, Indices
from dtrain.data.record import Record
from dtrain.errors import BackendError, DataError


@cache
def leveldb() -> Any:
    """The plyvel module."""
    try:
        return importlib.import_module("plyvel")
    except ImportError as error:
        raise BackendError(
            f"backend LEVELDB: plyvel must be installed, got {error}; pip install 'dtrain[leveldb]', or have "
            "an LMDB instead"
        ) from None


@final
class LevelDbReader(DatumReader):
    """All keys are held in memory. LevelDB lets one process at a time open a folder, and writes into it."""

    def __init__(self, source: str) -> None:
        self.name = source
        if not os.path.isdir(source):
            raise DataError(
                f"{source}: must be a LevelDB folder, got no such folder (seen from {os.getcwd()})"
            )
        module = leveldb()
        if not os.path.isfile(os.path.join(source, LEVELDB_FILE)):  # LevelDB would write into any folder
            raise DataError(f"{source}: must be a LevelDB folder, got one without a file {LEVELDB_FILE}")
        try:
            self._database: Any = module.DB(source, create_if_missing=False)
        except (module.Error, OSError) as error:
            told = _told(error)
            if "IO error: lock " not in told:
                raise DataError(f"{source}: must be a readable LevelDB, got {told}") from error
            raise DataError(
                f"{source}: must be a LevelDB that no other process has open, got {told}; for several ranks "
                "`dtrain convert records` makes an LMDB of it"
            ) from error
        try:
            self._keys = _keys_of(self._database)
        except module.Error as error:
            self.close()
            raise DataError(
                f"{source}: all keys must be readable, got {_told(error)}; copy or convert it again"
            ) from error
        if not self._keys:
            self.close()
            raise DataError(f"{source}: must hold at least one record, got an empty database")

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> Record:
        with self.datums(np.array([index])) as messages:
            return decode_datum(messages.bytes_of(0).tobytes(), self.where(index))

    @contextmanager
    def datums(self, indices: Indices) -> Iterator[Messages]:
        if self._database.closed:
            raise DataError(f"{self.name}: the reader must be open, got a read after close")
        yield located([memoryview(self._value(index)) for index in indices.tolist()])

    def _value(self, index: int) -> bytes:
        try:
            value: bytes | None = self._database.get(self._keys[index])
        except leveldb().Error as error:
            raise DataError(f"{self.where(index)}: must be readable, got {_told(error)}") from error
        if value is None:
            raise DataError(f"{self.where(index)}: must be there as when it was opened, got none")
        return value

    def where(self, index: int) -> str:
        return f"{self.name}: record {index} (key {self._keys[index].decode(errors='replace')})"

    def close(self) -> None:
        self._database.close()


def _keys_of(database: Any) -> list[bytes]:
    """In their order. A raw iterator raises where a file is cut; the plain one takes that for the end."""
    keys = []
    with closing(database.raw_iterator()) as cursor:
        cursor.seek_to_first()
        while cursor.valid():
            keys.append(cursor.key())
            cursor.next()
    return keys


def _told(error: Exception) -> str:
    """LevelDB's errors are bytes."""
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(error)
