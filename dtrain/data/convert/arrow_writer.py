"""One Arrow IPC or Parquet file of records, whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dtrain.data.record import Record
from dtrain.errors import DataError

CHUNK_ROWS, CHUNK_BYTES = 1000, 32 << 20  # a record batch or row group ends at either


def write_arrow(path: str, records: Iterable[tuple[str, Record]], *, parquet: bool) -> int:
    """Columns name, image, label; returns the number of rows. Overwrites `path` once all is written."""
    part = f"{path}.{os.getpid()}.part"
    num = 0
    writer: Any = None
    schema: Any = None
    try:
        with open(part, "wb") as file:
            for rows in _chunks(records):
                table = _table(rows)
                if writer is None:
                    schema = table.schema
                    writer = pq.ParquetWriter(file, schema) if parquet else pa.ipc.new_file(file, schema)
                if table.schema != schema:
                    raise DataError(
                        f"{rows[0][1].where}: all records must be alike, got an image column of "
                        f"{table.schema.field('image').type} after {schema.field('image').type}"
                    )
                writer.write_table(table)
                num += len(rows)
            if writer is None:
                raise DataError(f"{path}: must get at least one record, got none")
            writer.close()
            writer = None
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: must be writable, got {error}") from error
    finally:
        if os.path.exists(part):
            os.remove(part)
    return num


def _chunks(records: Iterable[tuple[str, Record]]) -> Iterable[list[tuple[str, Record]]]:
    rows: list[tuple[str, Record]] = []
    num_bytes = 0
    for name, record in records:
        rows.append((name, record))
        num_bytes += record.pixels.nbytes if record.pixels is not None else len(record.encoded or b"")
        if len(rows) == CHUNK_ROWS or num_bytes >= CHUNK_BYTES:
            yield rows
            rows, num_bytes = [], 0
    if rows:
        yield rows


def _table(rows: list[tuple[str, Record]]) -> Any:
    labels = np.array([record.labels for _, record in rows], np.float32)
    whole = bool((labels == np.floor(labels)).all())
    kind = pa.int64() if whole else pa.float32()
    values = labels.astype(np.int64) if whole else labels
    label = (
        pa.array(values[:, 0], kind)
        if labels.shape[1] == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind), labels.shape[1])
    )
    # A file's name is any bytes; Arrow's text is UTF-8.
    names = [os.fsencode(name).decode(errors="backslashreplace") for name, _ in rows]
    return pa.table({"name": pa.array(names, pa.string()), "image": _images(rows), "label": label})


def _images(rows: list[tuple[str, Record]]) -> Any:
    kinds = {None if record.pixels is None else record.pixels.shape for _, record in rows}
    if kinds == {None}:
        return pa.array([bytes(record.encoded or b"") for _, record in rows], pa.binary())
    pixels = [record.pixels for _, record in rows if record.pixels is not None]
    if len(kinds) > 1 or len(pixels) < len(rows):
        shapes = " and ".join("an encoded one" if kind is None else str(kind) for kind in kinds)
        raise DataError(
            f"{rows[0][1].where}: raw images in a file must have one shape, got {shapes}; "
            "resize when converting"
        )
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack(pixels))
