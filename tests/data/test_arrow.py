"""Arrow sources: files of many kinds in many places, read lazily and many rows at a time."""

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.fs as fs
import pyarrow.parquet as pq
import pytest

from dtrain.data import arrow_files, arrow_reader
from dtrain.data.arrow_reader import ArrowReader
from dtrain.data.bad_records import BadRecords
from dtrain.data.fill import fill
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import DataError
from tests.data.sources import images, lmdb_of

PIXELS = images(40)


def png(pixels):
    return cv2.imencode(".png", pixels.transpose(1, 2, 0))[1].tobytes()


def table_of(kind, pixels, first=0):
    labels = pa.array(range(first, first + len(pixels)))
    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    elif kind == "floats":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels.astype(np.float32))
    elif kind == "struct":
        column = pa.array([{"bytes": png(image), "path": "x.png"} for image in pixels])
    else:
        kinds = {"encoded": pa.binary(), "large": pa.large_binary()}
        column = pa.array([png(image) for image in pixels], kinds[kind])
    return pa.table({"extra": pa.array(["x"] * len(pixels)), "image": column, "label": labels})


def write(path, table, rows=7):
    name = str(path)
    if name.endswith(".parquet"):
        pq.write_table(table, name, row_group_size=rows)
    elif name.endswith(".feather"):
        feather.write_feather(table, name, chunksize=rows, compression="lz4")
    else:
        with pa.ipc.new_file(name, table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)


def filled(reader, records, crop=0):
    settings = TransformSettings(train=True, seed=3, crop_h=crop, crop_w=crop, mirror=True, scale=0.5)
    shape = (3, crop or 8, crop or 9)
    data, labels = np.full((len(records), *shape), np.nan, np.float32), np.empty(len(records), np.float32)
    numbers = np.array(records)
    fill(reader, Transformer(settings, "layer"), numbers, np.arange(len(records)), data, labels, BadRecords())
    return data, labels


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet"])
@pytest.mark.parametrize("kind", ["encoded", "large", "struct", "tensor", "floats"])
def test_batches_are_those_of_an_lmdb_of_the_same_images(tmp_path, kind, suffix):
    folder = tmp_path / "files"
    folder.mkdir()
    for number, start in enumerate((0, 15, 16)):
        part = PIXELS[start : (15, 16, 40)[number]]
        write(folder / f"part{number}.{suffix}", table_of(kind, part, start))
    reader = ArrowReader(str(folder))
    assert len(reader) == 40
    other = LmdbReader(lmdb_of(tmp_path / "db", PIXELS))
    for records in ([0, 1, 2, 3], [39, 0, 14, 15, 16, 17, 6, 7, 39], [15]):
        for crop in (0, 5):
            for mine, expected in zip(
                filled(reader, records, crop), filled(other, records, crop), strict=True
            ):
                np.testing.assert_array_equal(mine, expected)
    assert reader.where(17) == f"{folder}/part2.{suffix}: row 1 (record 17)"
    record = reader.read(17)
    reader.close()
    reader.close()
    assert record.labels == (17.0,)
    with pytest.raises(DataError, match="must be open, got a read after close"):
        reader.read(17)
    other.close()


def test_sources_may_be_patterns_lists_and_uris(tmp_path):
    for number in range(3):
        write(tmp_path / f"a{number}.arrow", table_of("tensor", PIXELS[:5], 10 * number))
    write(tmp_path / "b.parquet", table_of("tensor", PIXELS[:2], 90))
    (tmp_path / "readme.txt").write_text("no data")

    def labels(source):
        reader = ArrowReader(source)
        found = [int(reader.read(n).labels[0]) for n in range(len(reader))]
        reader.close()
        return found

    files = [list(range(10 * n, 10 * n + 5)) for n in range(3)]
    assert labels(f"{tmp_path}/a[02].arrow") == files[0] + files[2]
    assert labels(f"{tmp_path}/b.parquet,{tmp_path}/a1.arrow") == [90, 91, *files[1]]
    assert labels(f"file://{tmp_path}/a1.arrow") == files[1]
    assert labels(f"file://{tmp_path}") == files[0] + files[1] + files[2] + [90, 91]
    assert labels(f"file://{tmp_path}/a*.arrow") == files[0] + files[1] + files[2]
    for source, reason in (
        (f"{tmp_path}/c*.arrow", "must match at least one file"),
        (f"file://{tmp_path}/c*.arrow", "must hold .arrow, .feather or .parquet files"),
        (f"file://{tmp_path}/c.arrow", "got no such path"),
        ("nowhere://x/y", "must be a URI that pyarrow.fs reads"),
        (str(tmp_path / "none"), "got no such path"),
    ):
        with pytest.raises(DataError, match=reason):
            ArrowReader(source)


class Elsewhere:
    """Stands for a remote filesystem: everything under a folder, and not mapped."""

    def __init__(self, folder):
        self.folder = folder
        self.asked = []

    def from_uri(self, uri):
        self.asked.append(uri)
        return fs.SubTreeFileSystem(str(self.folder), fs.LocalFileSystem()), uri.removeprefix("s3://")


@pytest.mark.parametrize("suffix", ["arrow", "feather", "parquet"])
def test_remote_files_are_read_a_chunk_at_a_time(tmp_path, monkeypatch, suffix):
    (tmp_path / "bucket").mkdir()
    write(tmp_path / f"bucket/x.{suffix}", table_of("encoded", PIXELS))
    elsewhere = Elsewhere(tmp_path)
    monkeypatch.setattr(arrow_files.fs, "FileSystem", elsewhere)
    reader = ArrowReader("s3://bucket")
    assert elsewhere.asked == ["s3://bucket"]
    other = LmdbReader(lmdb_of(tmp_path / "db", PIXELS))
    records = [0, 39, 12, 13]
    np.testing.assert_array_equal(filled(reader, records)[0], filled(other, records)[0])
    assert len(reader._rows) == 3  # of six chunks those that hold the records
    reader.close()
    other.close()


def test_row_groups_are_read_once_while_they_are_kept_and_never_all(tmp_path, monkeypatch):
    write(tmp_path / "x.parquet", table_of("tensor", PIXELS), rows=10)
    monkeypatch.setattr(arrow_reader, "CACHE_BYTES", int(2.5 * 10 * PIXELS[0].size))
    read = []
    group = arrow_files._read_group
    monkeypatch.setattr(arrow_files, "_read_group", lambda *words: (read.append(words[2]), group(*words))[1])
    reader = ArrowReader(str(tmp_path / "x.parquet"))
    assert read == []
    for index in (0, 5, 11, 3, 25, 4, 12, 39, 30):
        assert reader.read(index).labels == (index,)
    # 0 and 1 are kept; 2 takes the place of 1, which was used before 0; and so on
    assert read == [0, 1, 2, 1, 3]
    assert len(reader._rows) == 2
    reader.close()


def test_several_labels_make_rows_and_nulls_are_named(tmp_path):
    column = pa.array([png(image) for image in PIXELS[:4]])
    for number, labels in enumerate(([[0, 1], [2, 3], [4, 5], [6, 7]], [[0, 1], [2, 3], None, [6, 7]])):
        write(tmp_path / f"{number}.arrow", pa.table({"image": column, "label": labels}))
    reader = ArrowReader(str(tmp_path / "0.arrow"))
    data, labels = np.empty((3, 3, 8, 9), np.float32), np.empty((3, 2), np.float32)
    transformer = Transformer(TransformSettings(train=False), "layer")
    fill(reader, transformer, np.array([3, 0, 2]), np.arange(3), data, labels, BadRecords())
    assert labels.tolist() == [[6, 7], [0, 1], [4, 5]]
    gap = ArrowReader(str(tmp_path / "1.arrow"))
    records = np.array([3, 0, 2])
    with pytest.raises(DataError, match=r"1\.arrow: row 2 \(record 2\): image and label must have values"):
        fill(gap, transformer, records, np.arange(3), data, labels, BadRecords())
    fill(gap, transformer, records, np.arange(3), data, labels, BadRecords(1))
    assert records.tolist() == [3, 0, 3]
    assert labels.tolist() == [[6, 7], [0, 1], [6, 7]]


@pytest.mark.parametrize(
    ("image", "label", "reason"),
    [
        (["text"], [1], "column image must be binary"),
        ([b"x"], ["cat"], "column label must hold numbers"),
        ([[1, 2]], [1], "column image must be binary"),
    ],
)
def test_columns_of_other_types_are_refused(tmp_path, image, label, reason):
    write(tmp_path / "x.arrow", pa.table({"image": image, "label": label}))
    with pytest.raises(DataError, match=reason):
        ArrowReader(str(tmp_path / "x.arrow"))


def test_files_of_unlike_shapes_are_named(tmp_path):
    write(tmp_path / "a.arrow", table_of("tensor", PIXELS[:2]))
    write(tmp_path / "b.arrow", table_of("tensor", PIXELS[:2, :1]))
    reader = ArrowReader(str(tmp_path))
    with pytest.raises(DataError, match=r"b\.arrow: all rows of a source must be alike, got uint8 pixels"):
        filled(reader, [0, 2])


def test_a_file_that_is_cut_short_is_named(tmp_path):
    for suffix in ("arrow", "parquet"):
        path = tmp_path / f"x.{suffix}"
        write(path, table_of("tensor", PIXELS))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=rf"x\.{suffix}: must be an Arrow IPC file or a Parquet file"):
            ArrowReader(str(path))
