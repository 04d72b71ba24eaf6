"""Tools that go by the names and flags of Caffe's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.backends import open_reader
from dtrain.data.decode import opencv
from dtrain.data.mean_file import read_mean


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for name, value in (("a.png", 10), ("b.png", 30)):
        assert opencv().imwrite(str(tmp_path / name), np.full((4, 6, 3), (value, 2 * value, 0), np.uint8))
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\n")
    return tmp_path


def test_convert_imageset_takes_the_flags_of_caffe(images: Path) -> None:
    words = ["-resize_height=2", "-resize_width", "3", "--shuffle=false", "-gray=false"]
    assert run(["convert_imageset", *words, f"{images}/", f"{images}/list.txt", f"{images}/lmdb"]) == 0
    reader = open_reader(f"{images}/lmdb", "LMDB")
    try:
        records = [reader.read(i) for i in range(len(reader))]
    finally:
        reader.close()
    assert [record.labels for record in records] == [(0.0,), (1.0,)]
    pixels = records[1].pixels
    assert pixels is not None
    assert pixels.shape == (3, 2, 3)
    assert pixels[:, 0, 0].tolist() == [30, 60, 0]


def test_convert_imageset_writes_either_of_caffes_databases(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"{images}/leveldb"
    assert run(["convert_imageset", "-backend", "leveldb", f"{images}/", f"{images}/list.txt", out]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"wrote {out}: 2 records",
        "next: name it as data_param source, with backend: LEVELDB, in a net, then dtrain SOLVER",
    ]
    reader = open_reader(out, "LEVELDB")
    assert reader.where(1) == f"{out}: record 1 (key 00000001_b.png)"
    reader.close()
    assert run(["compute_image_mean", "-backend=leveldb", out, f"{images}/mean.binaryproto"]) == 0


def test_compute_image_mean_writes_the_mean_and_tells_it(
    images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert_imageset", f"{images}/", f"{images}/list.txt", f"{images}/lmdb"]) == 0
    capsys.readouterr()
    mean = f"{images}/mean.binaryproto"
    for _ in range(2):  # as Caffe's, it replaces what is there
        assert run(["compute_image_mean", "-backend=lmdb", f"{images}/lmdb", mean]) == 0
    shown = capsys.readouterr().out
    assert "mean_value channel [0]: 20\nmean_value channel [1]: 40\nmean_value channel [2]: 0\n" in shown
    assert np.array_equal(read_mean(mean), np.broadcast_to([[[20]], [[40]], [[0]]], (3, 4, 6)))
