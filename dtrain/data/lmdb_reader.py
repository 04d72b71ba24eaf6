"""LMDB as Caffe writes it: Datum messages under keys whose byte order is the order of the records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, final

import numpy as np

from dtrain.data.datum import decode_datum
from dtrain.data.datum_scan import Messages, addresses_of, located
from dtrain.data.lmdb_environment import Environment, registry
from dtrain.data.reader import DatumReader, Indices
from dtrain.data.record import Record
from dtrain.errors import DataError

_DIGITS = 8  # Caffe's converters write "%08d" and "%08d_name"
_PLACED = 4 << 20  # records of a source whose places are kept, 16 bytes each
_PROBES = 256  # keys looked at before a database is taken to be numbered without gaps


@final
class LmdbReader(DatumReader):
    """An LMDB folder, or a single file; records in the order of their keys, as Caffe's cursor visits them."""

    def __init__(self, source: str) -> None:
        self.name = source
        self._file, environment = registry().acquire(source)
        self._environment: Environment | None = environment
        self._num = environment.num_entries
        # A file that nobody writes to stays where it is mapped: a record is looked up by its key once.
        is_kept = self._num <= _PLACED
        self._addresses = np.zeros(self._num, np.int64) if is_kept else None
        self._lengths = np.zeros(self._num if is_kept else 0, np.int64)
        try:
            if self._num == 0:
                raise DataError(f"{source}: must hold at least one record, got an empty database")
            with environment.transaction() as txn:
                self._keys = _find_keys(txn, self._num, source)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._num

    def read(self, index: int) -> Record:
        with self.datums(np.array([index])) as messages:
            return decode_datum(messages.bytes_of(0).tobytes(), self.where(index))

    @contextmanager
    def datums(self, indices: Indices) -> Iterator[Messages]:
        with self._opened().transaction() as txn:
            if self._addresses is None:
                yield located(self._keys.values(txn, indices))
                return
            addresses, lengths = self._addresses.take(indices), self._lengths.take(indices)
            if not addresses.all():
                new = np.flatnonzero(addresses == 0)
                values = self._keys.values(txn, indices[new])
                addresses[new] = addresses_of(values)
                lengths[new] = np.fromiter(map(len, values), np.int64, len(values))
                # In this order, since another thread takes an address to mean that the length is there.
                self._lengths[indices[new]] = lengths[new]
                self._addresses[indices[new]] = addresses[new]
            yield Messages(addresses, lengths, txn)

    def where(self, index: int) -> str:
        with self._opened().transaction() as txn:
            return f"{self.name}: record {index} (key {self._keys.key(txn, index).decode(errors='replace')})"

    def close(self) -> None:
        if self._environment is not None:
            self._environment = None
            registry().release(self._file)

    def _opened(self) -> Environment:
        if self._environment is None:
            raise DataError(f"{self.name}: the reader must be open, got a read after close")
        return self._environment


class _Keys(Protocol):
    """From the number of a record to its key and value."""

    def key(self, txn: Any, index: int) -> bytes: ...

    def values(self, txn: Any, indices: Indices) -> Sequence[memoryview]: ...


@final
class _Numbered:
    """Keys that start with the record's number in eight digits: nothing to store, nothing to scan."""

    def __init__(self, source: str, exact: bool) -> None:
        self._source = source
        self._exact = exact  # the digits are the whole key, as far as was looked

    def key(self, txn: Any, index: int) -> bytes:
        prefix = b"%08d" % index
        with txn.cursor() as cursor:
            found = bytes(cursor.key()) if cursor.set_range(prefix) else b""
        if not found.startswith(prefix):
            raise self._gap(prefix)
        return found

    def values(self, txn: Any, indices: Indices) -> Sequence[memoryview]:
        prefixes = [b"%08d" % index for index in indices.tolist()]
        if self._exact:
            with txn.cursor() as cursor:
                values = [value for _, value in cursor.getmulti(prefixes)]
            if len(values) == len(prefixes):  # it leaves out keys that are not there
                return values
        values = []
        with txn.cursor() as cursor:
            for prefix in prefixes:
                if not cursor.set_range(prefix):
                    raise self._gap(prefix)
                key, value = cursor.item()
                if key[:_DIGITS] != prefix:
                    raise self._gap(prefix)
                values.append(value)
        return values

    def _gap(self, prefix: bytes) -> DataError:
        return DataError(
            f"{self._source}: keys must be numbered without gaps or repeats as the first and last are, "
            f"got no key {prefix.decode()}; write the database again with `dtrain convert`"
        )


@final
class _Listed:
    """All keys, end to end in one buffer with their boundaries: 8 bytes a record besides the keys."""

    def __init__(self, txn: Any) -> None:
        keys: list[bytes] = []
        parts: list[bytes] = []
        ends: list[np.ndarray[Any, Any]] = []
        with txn.cursor() as cursor:
            for key in cursor.iternext(keys=True, values=False):
                keys.append(bytes(key))
                if len(keys) == 65536:
                    _pack(keys, parts, ends)
        _pack(keys, parts, ends)
        self._buffer = b"".join(parts)
        self._ends = np.concatenate([np.zeros(1, np.int64), *ends]).cumsum()

    def key(self, txn: Any, index: int) -> bytes:
        return self._buffer[self._ends[index] : self._ends[index + 1]]

    def values(self, txn: Any, indices: Indices) -> Sequence[memoryview]:
        buffer, get = self._buffer, txn.get
        starts, stops = self._ends[indices].tolist(), self._ends[indices + 1].tolist()
        return [get(buffer[start:stop]) for start, stop in zip(starts, stops, strict=True)]


def _pack(keys: list[bytes], parts: list[bytes], ends: list[np.ndarray[Any, Any]]) -> None:
    parts.append(b"".join(keys))
    ends.append(np.fromiter(map(len, keys), np.int64, len(keys)))
    keys.clear()


def _find_keys(txn: Any, num: int, source: str) -> _Keys:
    """Numbered keys if first, last and evenly spaced ones are; otherwise the list of all.

    As many distinct keys as numbers, sorted: if the last is numbered num - 1, a number can only be missing
    where another is there twice. No converter writes that; reading the missing number would raise.
    """
    probes = np.unique(np.linspace(0, num - 1, min(num, _PROBES)).astype(np.int64)).tolist()
    with txn.cursor() as cursor:
        numbered = (
            num <= 10**_DIGITS and cursor.last() and bytes(cursor.key())[:_DIGITS] == b"%08d" % (num - 1)
        )
        for index in probes:
            prefix = b"%08d" % index
            numbered = numbered and cursor.set_range(prefix) and bytes(cursor.key())[:_DIGITS] == prefix
        if not numbered:
            return _Listed(txn)
        exact = all(cursor.set_key(b"%08d" % index) for index in probes)
    return _Numbered(source, exact)
