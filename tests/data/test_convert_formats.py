"""Every format that a conversion writes holds what the source held, and layers and commands read it."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.convert.items import ArrayItems
from dtrain.data.convert.recode import Recode
from dtrain.data.convert.shard_formats import FORMATS, WHOLE
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.convert.sources import open_items
from dtrain.data.decode import decode_image
from dtrain.data.hdf5_reader import Hdf5Reader
from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.sources import images, jpeg_of, lmdb_of

NUM = 23
PIXELS = images(NUM)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """An LMDB of raw images labelled 0, 1, 2, ..."""
    return lmdb_of(tmp_path / "db", PIXELS)


def convert(source: str, out: Path, kind: str, shards: int = 1, recode: Recode | None = None) -> str:
    listed = f"{source}/list.txt" if os.path.isfile(f"{source}/00000000.png") else ""
    items = open_items(source, list_file=listed)
    try:
        convert_shards(items, str(out), Layout(format=kind, shards=shards), recode, threads=2)
    finally:
        items.close()
    return str(out)


def contents(source: str) -> list[tuple[tuple[float, ...], bytes]]:
    """Labels and decoded pixels of every record."""
    listed = f"{source}/list.txt" if os.path.isfile(f"{source}/00000000.png") else ""
    items = open_items(source, list_file=listed)
    found = []
    for n in range(len(items)):
        record = items.read(n)
        pixels = record.pixels
        if pixels is None:
            assert record.encoded is not None
            pixels = decode_image(record.encoded, "as stored", record.where)
        found.append((record.labels, np.ascontiguousarray(pixels).tobytes()))
    items.close()
    return found


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("start", FORMATS)
def test_images_go_from_every_format_to_every_other(source: str, tmp_path: Path, start: str, to: str) -> None:
    first = convert(source, tmp_path / "first", start, 1 if start in WHOLE else 3)
    recode = Recode(raw=True, colour="as stored") if start == "images" else None
    second = convert(first, tmp_path / "second", to, 1 if to in WHOLE else 2, recode)
    assert contents(first) == contents(second) == contents(source)
    assert sorted(os.listdir(tmp_path)) == ["db", "first", "second"]


def served(spec: str, batches: int = 4) -> tuple[list[int], np.ndarray]:
    param = pb.NetParameter()
    text.parse(f'layer {{ name: "data" top: "data" top: "label" {spec} }}', param)
    net = Net(param, Scope(CpuBackend(), pb.TRAIN))
    labels, values = [], []
    for _ in range(batches):
        net.forward()
        labels += net.blob("label").data.plain().astype(int).tolist()
        values.append(net.blob("data").data.plain().copy())
    net.layer("data").close()  # type: ignore[attr-defined]
    return labels, np.concatenate(values)


@pytest.mark.parametrize("to", FORMATS)
def test_layers_serve_what_was_converted(source: str, tmp_path: Path, to: str) -> None:
    out = convert(source, tmp_path / "out", to, 1 if to in WHOLE else 3)
    backend = {"lmdb": "LMDB", "leveldb": "LEVELDB"}.get(to, "ARROW")
    spec = f'type: "Data" data_param {{ source: "{out}" backend: {backend} batch_size: 5 }}'
    if to == "hdf5":
        spec = f'type: "HDF5Data" hdf5_data_param {{ source: "{out}/list.txt" batch_size: 5 }}'
    if to == "images":
        spec = (
            f'type: "ImageData" image_data_param {{ source: "{out}/list.txt" root_folder: "{out}/" '
            "batch_size: 5 }"
        )
    labels, values = served(spec)
    assert labels == list(range(20))
    np.testing.assert_array_equal(values, PIXELS[:20])


@pytest.mark.parametrize("to", FORMATS)
def test_the_commands_check_what_was_converted(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    out = str(tmp_path / "out")
    assert run(["convert", "records", source, out, "--to", to]) == 0
    told = capsys.readouterr().out
    assert f"wrote {out}: {NUM} records" in told
    assert ("list.txt as" in told) == (to in ("hdf5", "images"))
    more = ["--list", f"{out}/list.txt"] if to == "images" else []
    for command in ("check", "info"):
        assert run(["data", command, out, *more]) == 0
        told = capsys.readouterr().out
        assert f"{NUM} records" in told
        assert f"{len(PIXELS[0])} x 8 x 9 ({NUM})" in told


def test_a_broken_image_file_is_reported_by_check(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = convert(source, tmp_path / "out", "images")
    Path(out, "00000004.png").write_bytes(b"none")
    Path(out, "00000007.png").unlink()
    assert run(["data", "check", out, "--list", f"{out}/list.txt"]) == 2
    told = capsys.readouterr().out
    assert f"bad: {out}/00000004.png: must be an image that OpenCV decodes" in told
    assert f"image must be readable, got No such file or directory for {out}/00000007.png" in told
    assert f"{NUM} records, 2 of them bad" in told


def test_encoded_and_unlike_images_are_refused_for_hdf5_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "tree/ant").mkdir(parents=True)
    for n, size in enumerate(((8, 9), (8, 10))):
        (tmp_path / f"tree/ant/{n}.jpg").write_bytes(jpeg_of(images(1, (3, *size))[0]))
    with pytest.raises(DataError, match=r"ant/0\.jpg: HDF5 files must get pixels, .* pass --raw"):
        convert(f"{tmp_path}/tree", tmp_path / "out", "hdf5")
    with pytest.raises(DataError, match=r"1\.jpg: all images of an HDF5 file must be alike, .*8, 10\) after"):
        convert(f"{tmp_path}/tree", tmp_path / "out", "hdf5", recode=Recode(raw=True))
    assert not (tmp_path / "out").exists()
    convert(f"{tmp_path}/tree", tmp_path / "sized", "hdf5", recode=Recode(raw=True, width=4, height=4))
    reader = Hdf5Reader(f"{tmp_path}/sized")
    assert reader.read(1).pixels.shape == (3, 4, 4)  # type: ignore[union-attr]
    assert reader.where(1).endswith("part-00000-of-00001.h5: row 1 (record 1)")
    reader.close()


def test_labels_that_are_no_numbers_of_classes_go_to_arrow_and_hdf5_alone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = PIXELS.astype(np.float32) / 7
        file["label"] = np.arange(2 * NUM).reshape(NUM, 2) / 4
    for kind in ("arrow", "parquet", "hdf5"):
        out = convert(f"{tmp_path}/a.h5", tmp_path / kind, kind)
        assert contents(out) == contents(f"{tmp_path}/a.h5")
    for kind in ("lmdb", "leveldb"):
        with pytest.raises(DataError, match=r"a\.h5: row 0 .*: a Datum must have one whole label"):
            convert(f"{tmp_path}/a.h5", tmp_path / kind, kind)
    with pytest.raises(DataError, match="an image file must get 1 or 3 channels of 8 bits, got 3 of float32"):
        convert(f"{tmp_path}/a.h5", tmp_path / "images", "images")


def test_hdf5_files_that_are_no_images_are_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((4, 5))
        file["label"] = np.zeros(4)
    with pytest.raises(
        DataError, match=r"a\.h5: data must be \(n, channels, height, width\) .* got \(n, 5\)"
    ):
        open_items(f"{tmp_path}/a.h5")


@pytest.mark.parametrize("kind", WHOLE)
def test_formats_without_parts_are_not_sharded(tmp_path: Path, kind: str) -> None:
    items = ArrayItems("here", PIXELS, np.arange(NUM))
    with pytest.raises(ConfigError, match=f"shards must be 1 for format {kind}, got 2"):
        convert_shards(items, str(tmp_path / "out"), Layout(format=kind, shards=2))


def test_what_a_killed_writer_was_at_is_cleared_away(source: str, tmp_path: Path) -> None:
    """Parts that are done stay; with none done, other settings may begin anew."""
    part = tmp_path / "out.part"
    (part / "part-00001-of-00002.x1y2.part" / "part").mkdir(parents=True)
    (part / "part-00000-of-00002.h5.new").write_bytes(b"half")
    (part / "part-00000-of-00002.new").mkdir()
    (part / "plan.json").write_text("another")
    convert(source, tmp_path / "out", "lmdb", 2)
    assert sorted(os.listdir(tmp_path / "out")) == ["part-00000-of-00002", "part-00001-of-00002"]
    assert contents(f"{tmp_path}/out") == contents(source)
    assert not part.exists()
