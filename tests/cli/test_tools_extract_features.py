"""`dtrain extract_features`: every row of every batch, in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.cli.main import run
from dtrain.data.backends import open_reader
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_pixels
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import write_binary

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{source}" batch_size: 3 backend: LMDB }} }}
layer {{ name: "sign" type: "Power" bottom: "data" top: "features" power_param {{ scale: -1 }} }}
layer {{ name: "relu" type: "ReLU" bottom: "features" top: "features" relu_param {{ negative_slope: 0.5 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "features" top: "ip"
  inner_product_param {{ num_output: 1 }} }}
"""
PIXELS = np.arange(5 * 2 * 3 * 2, dtype=np.uint8).reshape(5, 2, 3, 2)
WEIGHTS = np.linspace(0, 1, 12, dtype=np.float32)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A database of five images, a net of batches of three, and weights."""
    write_lmdb(
        str(tmp_path / "images"),
        ((b"%08d" % i, encode_pixels(image, i)) for i, image in enumerate(PIXELS)),
    )
    (tmp_path / "net.prototxt").write_text(NET.format(source=tmp_path / "images"))
    weights = pb.NetParameter()
    layer = weights.layer.add(name="ip", type="InnerProduct")
    layer.blobs.add(shape=pb.BlobShape(dim=[1, 12])).data.extend(WEIGHTS.tolist())
    layer.blobs.add(shape=pb.BlobShape(dim=[1])).data.extend([0.25])
    write_binary(tmp_path / "net.caffemodel", weights)
    return tmp_path


def extract(here: Path, blobs: str, outs: str, kind: str, *more: str) -> int:
    paths = ",".join(str(here / name) for name in outs.split(","))
    return run(
        [
            "extract_features",
            f"{here}/net.caffemodel",
            f"{here}/net.prototxt",
            blobs,
            paths,
            "2",
            kind,
            *more,
        ]
    )


def wanted() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two batches of three out of five images: the sixth row is the first image again."""
    features = np.float32(-0.5) * PIXELS[[0, 1, 2, 3, 4, 0]].astype(np.float32)
    return features, features.reshape(6, 12) @ WEIGHTS[:, None] + np.float32(0.25)


def test_lmdb_holds_datums_as_caffe_writes_them(here: Path) -> None:
    import lmdb

    assert extract(here, "features,ip", "f,ip", "LMDB", "CPU") == 0
    features, ip = wanted()
    with lmdb.open(str(here / "ip"), readonly=True, lock=False) as environment, environment.begin() as txn:
        assert [key for key, _ in txn.cursor()] == [b"%010d" % i for i in range(6)]
        datum = pb.Datum.FromString(txn.get(b"0000000004"))
    assert (datum.channels, datum.height, datum.width) == (1, 1, 1)
    assert datum.float_data == pytest.approx(ip[4].tolist(), rel=1e-6)
    reader = open_reader(str(here / "f"), "LMDB")
    try:
        rows = [reader.read(i).pixels for i in range(len(reader))]
    finally:
        reader.close()
    assert np.array_equal(np.array(rows), features)


def test_hdf5_holds_a_dataset_by_the_name_of_the_blob(here: Path) -> None:
    import h5py

    assert extract(here, "features,ip", "f.h5,ip.h5", "hdf5") == 0
    features, ip = wanted()
    with h5py.File(here / "f.h5") as first, h5py.File(here / "ip.h5") as second:
        assert np.array_equal(first["features"][()], features)
        assert np.allclose(second["ip"][()], ip)


def test_arrow_holds_a_column_by_the_name_of_the_blob(here: Path) -> None:
    import pyarrow as pa

    assert extract(here, "features,label", "f.arrow,l.arrow", "ARROW") == 0
    with pa.memory_map(str(here / "f.arrow")) as source:
        column = pa.ipc.open_file(source).read_all().column("features").combine_chunks()
        assert np.array_equal(column.to_numpy_ndarray(), wanted()[0])
    with pa.memory_map(str(here / "l.arrow")) as source:
        table = pa.ipc.open_file(source).read_all()
        assert table.column("label").to_pylist() == [0, 1, 2, 3, 4, 0]


def test_nothing_is_replaced_unless_asked_for(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("lmdb", "hdf5", "arrow"):
        assert extract(here, "ip", kind, kind) == 0
        assert extract(here, "ip", kind, kind) == 1
        assert "must not exist yet" in capsys.readouterr().err
        assert extract(here, "ip", kind, kind, "--overwrite") == 0
    assert sorted(path.name for path in here.iterdir()) == sorted(
        ["images", "net.prototxt", "net.caffemodel", "lmdb", "hdf5", "arrow"]
    )


@pytest.mark.parametrize(
    ("blobs", "outs", "kind", "told"),
    [
        ("ip,features", "one", "lmdb", "OUTS must number as BLOBS (2), got 1"),
        ("feature", "one", "lmdb", 'unknown blob "feature"; did you mean "features"?'),
        ("ip", "one", "leveldb", 'unknown feature backend "leveldb"'),
        ("ip", "absent/one", "hdf5", "must be writable, got No such file or directory"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(
    here: Path, blobs: str, outs: str, kind: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert extract(here, blobs, outs, kind) == 1
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1
