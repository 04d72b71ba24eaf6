"""HDF5 files as flat dictionaries: "history/3" -> array."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import BackendError, DtrainError
from dtrain.solvers.whole_file import replacing

Value: TypeAlias = NDArray[Any] | int | str


def write(path: Path, values: Mapping[str, Value]) -> None:
    """Write each value under its path; the file is whole or, after an OSError, as it was before.

    An integer is an array of one, a text a scalar of fixed length: what Caffe's HDF5 calls read.
    """
    h5py = _h5py()
    with replacing(path) as beside, h5py.File(beside, "w") as file:
        for key, value in values.items():
            if isinstance(value, int):
                file[key] = np.array([value], np.int32)
            elif isinstance(value, str):
                file[key] = np.bytes_(value.encode() + b"\0")
            else:
                file[key] = value


def read(path: Path, error: type[DtrainError]) -> dict[str, Value]:
    """Every dataset by its path. Raises `error` for a file that is absent, partial or of another format."""
    h5py = _h5py()
    found: dict[str, Value] = {}

    def visit(key: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = item[()]
            if isinstance(value, bytes):
                found[key] = value.rstrip(b"\0").decode()
            elif np.issubdtype(value.dtype, np.integer) and value.size == 1:
                found[key] = int(value.reshape(-1)[0])
            else:
                found[key] = value

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as fault:
        raise error(f"{path}: must be a whole HDF5 file, got {fault}") from fault
    return found


def check_available() -> None:
    """Raise BackendError where h5py is not installed."""
    _h5py()


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")
    except ImportError:
        raise BackendError("HDF5: h5py must be installed, got no such package; pip install h5py") from None
