"""Arrow IPC files and Parquet files: a column `image` and a column `label`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import numpy as np

from dtrain.data.arrow_files import Chunk, chunks_of, without_secret
from dtrain.data.arrow_rows import Rows
from dtrain.data.reader import ColumnReader, Columns, Indices
from dtrain.data.record import Record
from dtrain.errors import DataError

CACHE_BYTES = 256 << 20  # of chunks that had to be read and decompressed


@final
class ArrowReader(ColumnReader):
    """Rows of the files that a source names: a file, a folder, a pattern, a URI, or several between commas.

    `image` holds encoded images (binary), or pixels as a fixed-shape tensor (C, H, W) of uint8 or float32;
    `label` holds numbers, or lists of them. Local IPC files are mapped and never copied. Of Parquet,
    compressed and remote files, the row groups or batches that were used last are kept, CACHE_BYTES of them:
    shuffle those in blocks.
    """

    def __init__(self, source: str) -> None:
        self.name = without_secret(source)
        self._chunks = chunks_of(source)
        self._ends = np.cumsum([chunk.num_rows for chunk in self._chunks])
        self._starts = self._ends - [chunk.num_rows for chunk in self._chunks]
        self._rows: OrderedDict[int, Rows] = OrderedDict()  # the least recently used first
        self._read_bytes = 0
        self._form = ""  # of the rows that were loaded first
        self._using, self._loading = threading.Lock(), threading.Lock()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> Record:
        number, row = self._place(index)
        self._refuse_cut([number])
        rows, where = self._of(number), self.where(index)
        rows.check(row, where)
        labels = tuple(rows.labels[row].tolist())
        if rows.pixels is not None:
            return Record(where, labels, rows.pixels[row])
        return Record(where, labels, encoded=rows.encoded(row).data)

    @contextmanager
    def columns(self, indices: Indices, *, as_arrays: bool = False) -> Iterator[Columns]:
        numbers = np.searchsorted(self._ends, indices, side="right")
        places = indices - self._starts[numbers]
        wanted_chunks = np.unique(numbers).tolist()
        self._refuse_cut(wanted_chunks)
        by_chunk = {number: self._of(number) for number in wanted_chunks}
        first = next(iter(by_chunk.values()))
        labels = np.empty((len(indices), first.labels.shape[1]), np.float32)
        addresses = np.zeros(len(indices), np.int64)
        for number, rows in by_chunk.items():
            mine = np.flatnonzero(numbers == number)
            wanted = places[mine]
            if not rows.usable[wanted].all():
                wrong = int(mine[np.flatnonzero(~rows.usable[wanted])[0]])
                rows.check(int(places[wrong]), self.where(int(indices[wrong])))
            labels[mine] = rows.labels[wanted]
            addresses[mine] = rows.address + wanted * rows.row_bytes
        images = [
            rows.encoded(row) if rows.pixels is None else rows.pixels[row]
            for row, rows in zip(places.tolist(), map(by_chunk.get, numbers.tolist()), strict=True)
            if rows is not None and (as_arrays or not rows.is_bytes)
        ]
        yield Columns(labels, images, addresses, first.shape, list(by_chunk.values()))

    def where(self, index: int) -> str:
        number, row = self._place(index)
        chunk = self._chunks[number]
        return f"{chunk.path}: row {chunk.first_row + row} (record {index})"

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._starts[number])

    def _refuse_cut(self, numbers: list[int]) -> None:
        """Raise if a file that those chunks are mapped from is shorter now."""
        chunks = self._opened()
        for mapped in {chunks[number].mapped for number in numbers}:
            if mapped is not None:
                mapped.check()

    def _opened(self) -> list[Chunk]:
        if not self._chunks:
            raise DataError(f"{self.name}: the reader must be open, got a read after close")
        return self._chunks

    def _of(self, number: int) -> Rows:
        found = self._kept(number)
        if found is not None:
            return found
        with self._loading:
            found = self._kept(number)
            return self._load(number) if found is None else found

    def _kept(self, number: int) -> Rows | None:
        with self._using:
            found = self._rows.get(number)
            if found is not None:
                self._rows.move_to_end(number)
            return found

    def _load(self, number: int) -> Rows:
        chunk = self._opened()[number]
        rows = Rows(chunk)
        self._form = self._form or rows.form
        if rows.form != self._form:
            raise DataError(
                f"{chunk.path}: all rows of a source must be alike, got {rows.form} after {self._form}"
            )
        with self._using:
            self._rows[number] = rows
            if chunk.mapped is None:
                self._read_bytes += rows.num_bytes
            for old in list(self._rows):
                if self._read_bytes <= CACHE_BYTES:
                    break
                if old != number and self._chunks[old].mapped is None:
                    self._read_bytes -= self._rows.pop(old).num_bytes
        return rows

    def close(self) -> None:
        with self._using:
            self._rows.clear()
            self._chunks = []
