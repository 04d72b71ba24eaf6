"""Features as files: rows of an array of float32 as LMDB, HDF5 or Arrow.

Rows come from a memory map, so that no format needs them all in memory.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_pixels
from dtrain.errors import BackendError, ConfigError, DataError, unknown_name
from dtrain.solvers.whole_file import replacing

Rows: TypeAlias = NDArray[np.float32]
Writer: TypeAlias = Callable[[Path, str, Rows], None]

DATUM_AXES: Final = 3
ROWS_AT_A_TIME: Final = 1024


def writer_of(kind: str) -> Writer:
    """The function `(path, blob name, rows)` that writes a whole file or folder, replacing what is there."""
    writers: dict[str, Writer] = {"lmdb": _write_lmdb, "hdf5": _write_hdf5, "arrow": _write_arrow}
    if kind.lower() not in writers:
        raise ConfigError(f"command line: {unknown_name('feature backend', kind, writers)}")
    return writers[kind.lower()]


def _write_lmdb(path: Path, name: str, rows: Rows) -> None:
    """Datums with float_data under the row's number in ten digits, as Caffe's extract_features."""
    shape = rows.shape[1:]
    if len(shape) > DATUM_AXES:
        raise DataError(f'{path}: blob "{name}" must have at most 4 axes for a Datum, got {rows.shape}')
    whole = (*shape, *(1,) * (DATUM_AXES - len(shape)))

    def records() -> Iterator[tuple[bytes, bytes]]:
        for number, row in enumerate(rows):
            yield b"%010d" % number, encode_pixels(row.reshape(whole), 0)

    write_lmdb(str(path), records(), overwrite=True)  # the caller has asked before


def _write_hdf5(path: Path, name: str, rows: Rows) -> None:
    """One dataset with the blob's name, which an HDF5Data layer with such a top reads."""
    h5py = _module("h5py", "h5py")
    with replacing(path) as beside, h5py.File(beside, "w") as file:
        dataset = file.create_dataset(name, rows.shape, np.float32)
        for start in range(0, len(rows), ROWS_AT_A_TIME):
            dataset[start : start + ROWS_AT_A_TIME] = rows[start : start + ROWS_AT_A_TIME]


def _write_arrow(path: Path, name: str, rows: Rows) -> None:
    """An IPC file with one column, the blob's name, of tensors; of numbers where a row is one."""
    pa = _module("pyarrow", "pyarrow")
    with replacing(path) as beside, pa.OSFile(str(beside), "wb") as sink:
        schema = pa.schema([(name, _column(pa, rows[:1]).type)])
        with pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(rows), ROWS_AT_A_TIME):
                column = _column(pa, rows[start : start + ROWS_AT_A_TIME])
                writer.write_batch(pa.record_batch([column], schema=schema))


def _column(pa: Any, rows: Rows) -> Any:
    plain = np.ascontiguousarray(rows)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(plain) if plain.ndim > 1 else pa.array(plain)


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise BackendError(
            f"extract_features: {name} must be installed, got no such package; pip install {package}"
        ) from None
