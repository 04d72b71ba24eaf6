"""LevelDB as Caffe writes it: Datum messages in the order of their keys. Needs the package plyvel."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, final

import numpy as np

from dtrain.data.datum import decode_datum
from dtrain.data.datum_scan import Messages, located
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
        try:
            self._database: Any = module.DB(source, create_if_missing=False)
        except (module.Error, OSError) as error:
            raise DataError(
                f"{source}: must be a LevelDB that no other process has open, got {error}; for several ranks "
                "`dtrain convert records` makes an LMDB of it"
            ) from error
        self._keys: list[bytes] = list(self._database.iterator(include_value=False))
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
        yield located([memoryview(self._database.get(self._keys[index])) for index in indices.tolist()])

    def where(self, index: int) -> str:
        return f"{self.name}: record {index} (key {self._keys[index].decode(errors='replace')})"

    def close(self) -> None:
        self._database.close()
