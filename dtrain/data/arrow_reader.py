"""Arrow IPC files and Parquet files: a column `image` and a column `label`."""

from __future__ import annotations

import os
from typing import Any, final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.errors import DataError


@final
class ArrowReader(Reader):
    """Rows of one file, or of a folder's .arrow, .feather and .parquet files in the order of their names.

    `image` holds encoded images (binary), or pixels as a fixed-shape tensor (C, H, W) of uint8 or float32;
    `label` holds numbers, or lists of them. IPC files are mapped, not read; Parquet files are decompressed
    into memory.
    """

    def __init__(self, source: str) -> None:
        self.name = source
        self._batches: list[tuple[Any, Any]] = []
        self._files: list[str] = []
        lengths = []
        for path in _files(source):
            for batch in _table(path).to_batches():
                if batch.num_rows:
                    self._batches.append((_column(batch, "image", path), _column(batch, "label", path)))
                    self._files.append(path)
                    lengths.append(batch.num_rows)
        if not lengths:
            raise DataError(f"{source}: must hold at least one row, got none")
        self._ends = np.cumsum(lengths)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._batches else 0

    def read(self, index: int) -> Record:
        number, row = self._place(index)
        images, labels = self._batches[number]
        where = self.where(index)
        if not images[row].is_valid or not labels[row].is_valid:
            raise DataError(f"{where}: image and label must have values, got null")
        label = labels[row].as_py()
        values = tuple(map(float, label)) if isinstance(label, list) else (float(label),)
        if isinstance(images.type, pa.FixedShapeTensorType):
            return Record(where, values, images[row].to_numpy())
        return Record(where, values, encoded=memoryview(images[row].as_buffer()))

    def where(self, index: int) -> str:
        number, row = self._place(index)
        return f"{self._files[number]}: row {row} (record {index})"

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - (int(self._ends[number - 1]) if number else 0)

    def close(self) -> None:
        self._batches = []


def _files(source: str) -> list[str]:
    if not os.path.exists(source):
        raise DataError(f"{source}: must be an Arrow or Parquet file, or a folder of them, got no such path")
    if not os.path.isdir(source):
        return [source]
    names = sorted(name for name in os.listdir(source) if name.endswith((".arrow", ".feather", ".parquet")))
    if not names:
        raise DataError(f"{source}: must hold .arrow, .feather or .parquet files, got none")
    return [os.path.join(source, name) for name in names]


def _table(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            magic = file.read(6)
        if magic[:4] == b"PAR1":
            return pq.read_table(path, columns=["image", "label"])
        return pa.ipc.open_file(pa.memory_map(path)).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: must be an Arrow IPC file or a Parquet file, got {error}") from error


def _column(batch: Any, name: str, path: str) -> Any:
    if name not in batch.schema.names:
        raise DataError(f"{path}: columns must include image and label, got {', '.join(batch.schema.names)}")
    column = batch.column(name)
    if name == "image":
        encoded = pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)
        tensor = isinstance(column.type, pa.FixedShapeTensorType) and len(column.type.shape) == 3
        if not encoded and not (tensor and column.type.value_type in (pa.uint8(), pa.float32())):
            raise DataError(
                f"{path}: column image must be binary, or a (C, H, W) tensor of uint8 or float32, "
                f"got {column.type}"
            )
    return column
