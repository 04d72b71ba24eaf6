"""Rows of HDF5 files: which, how many at a time, and what is told where they cannot be read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from dtrain.data import hdf5_rows
from dtrain.data.hdf5_rows import Hdf5Rows
from dtrain.errors import DataError

NUM, WIDTH = 500, 64  # rows of 512 bytes


@pytest.fixture
def source(tmp_path: Path) -> str:
    values = np.arange(NUM * WIDTH, dtype=np.float64).reshape(NUM, WIDTH)
    for n, rows in enumerate((values[:400], values[400:])):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            file["data"] = rows
    (tmp_path / "list.txt").write_text(f"{tmp_path}/0.h5\n{tmp_path}/1.h5\n")
    return str(tmp_path / "list.txt")


CHOICES = {
    "all": np.arange(NUM),
    "every second": np.arange(1, NUM, 2),
    "far apart": np.arange(0, NUM, 49),
    "mixed and repeated": np.random.default_rng(0).integers(0, NUM, 300),
    "one": np.array([7]),
}


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("slice_bytes", [100, 20 * 512, 1 << 20])
def test_rows_are_those_asked_for_and_no_read_is_larger_than_the_bound(
    source: str, monkeypatch: pytest.MonkeyPatch, choice: str, slice_bytes: int
) -> None:
    read: list[int] = []
    inner = h5py.Dataset.__getitem__

    def noting(dataset: Any, at: Any) -> Any:
        found = inner(dataset, at)
        read.append(found.nbytes)
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noting)
    monkeypatch.setattr(hdf5_rows, "SLICE_BYTES", slice_bytes)
    rows = Hdf5Rows(source, ["data"])
    wanted = CHOICES[choice]
    out = np.full((len(wanted), WIDTH), np.nan)
    rows.read(wanted, [out])
    rows.close()
    np.testing.assert_array_equal(out, wanted[:, None] * WIDTH + np.arange(WIDTH))
    assert max(read) <= max(slice_bytes, 512)
    assert sum(read) <= 2 * 512 * len(wanted), "twice the rows at most"


def test_a_file_that_is_cut_while_it_is_open_is_named(source: str, tmp_path: Path) -> None:
    """HDF5 itself would serve zeros."""
    rows = Hdf5Rows(source, ["data"])
    out = np.empty((2, WIDTH))
    rows.read(np.array([0, 1]), [out])
    length = os.path.getsize(tmp_path / "0.h5")
    os.truncate(tmp_path / "0.h5", 50_000)
    told = rf"list\.txt: {tmp_path}/0\.h5 must keep its {length} bytes while it is read, got 50000; write"
    with pytest.raises(DataError, match=told):
        rows.read(np.array([398, 399]), [out])
    rows.close()


def test_a_chunk_that_cannot_be_read_is_told_with_its_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("data", data=np.random.default_rng(0).random((40, 64)), compression="gzip")
        (chunk,) = [file["data"].id.get_chunk_info(0)]
    with open(tmp_path / "a.h5", "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\0" * chunk.size)
    rows = Hdf5Rows("SOURCE", ["data"], [f"{tmp_path}/a.h5"])
    with pytest.raises(DataError, match=r"SOURCE: rows of .*/a\.h5 must be readable, got .*filter"):
        rows.read(np.array([0]), [np.empty((1, 64))])
    rows.close()
