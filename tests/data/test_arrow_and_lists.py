"""Arrow, Parquet and list files as sources."""

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtrain.data.backends import open_reader
from dtrain.data.image_list import ImageListReader, read_list
from dtrain.errors import ConfigError, DataError
from tests.data.sources import images


def png(pixels):
    return cv2.imencode(".png", pixels.transpose(1, 2, 0))[1].tobytes()


def table_of(kind, pixels):
    labels = pa.array(range(len(pixels)))
    if kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    else:
        column = pa.array([png(image) for image in pixels], pa.binary())
    return pa.table({"image": column, "label": labels})


@pytest.mark.parametrize("suffix", ["arrow", "parquet"])
@pytest.mark.parametrize("kind", ["encoded", "tensor"])
def test_rows_are_read_by_number_from_files_and_folders(tmp_path, kind, suffix):
    pixels = images(9)
    for number, part in enumerate((pixels[:4], pixels[4:])):
        path = str(tmp_path / f"part{number}.{suffix}")
        if suffix == "parquet":
            pq.write_table(table_of(kind, part), path)
        else:
            with pa.ipc.new_file(path, table_of(kind, part).schema) as writer:
                writer.write_table(table_of(kind, part), max_chunksize=3)
    reader = open_reader(str(tmp_path), "ARROW")
    assert len(reader) == 9
    for index in (0, 3, 4, 7, 8):
        record = reader.read(index)
        assert record.labels == (index if index < 4 else index - 4,)
        if kind == "encoded":
            assert bytes(record.encoded) == png(pixels[index])
        else:
            np.testing.assert_array_equal(record.pixels, pixels[index])
    reader.close()


def test_a_column_that_is_missing_is_named(tmp_path):
    path = str(tmp_path / "x.parquet")
    pq.write_table(pa.table({"label": [1]}), path)
    with pytest.raises(DataError, match=r"x\.parquet: .*image"):
        open_reader(path, "ARROW")
    (tmp_path / "y.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(DataError, match="must be an Arrow IPC file or a Parquet file"):
        open_reader(str(tmp_path / "y.arrow"), "ARROW")


def test_list_lines_may_have_spaces_in_their_paths(tmp_path):
    (tmp_path / "list.txt").write_text("a b/c d.png 3\nx.png -1\n\n")
    assert read_list(str(tmp_path / "list.txt")) == [("a b/c d.png", 3), ("x.png", -1)]


@pytest.mark.parametrize("line", ["x.png", "x.png a", "7"])
def test_a_list_line_that_is_none_is_named_by_its_number(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"x.png 1\n{line}\n")
    with pytest.raises(DataError, match=r"list\.txt:2: line must be a path, a space and an integer label"):
        read_list(str(tmp_path / "list.txt"))


def test_listed_images_are_decoded_and_resized(tmp_path):
    pixels = images(1, (3, 8, 9))[0]
    (tmp_path / "a b.png").write_bytes(png(pixels))
    (tmp_path / "list.txt").write_text("a b.png 4\n")
    root = str(tmp_path) + "/"
    record = ImageListReader(root + "list.txt", root_folder=root).read(0)
    np.testing.assert_array_equal(record.pixels, pixels)
    assert record.labels == (4,)
    resized = ImageListReader(root + "list.txt", root_folder=root, new_height=4, new_width=6, is_color=False)
    assert resized.read(0).pixels.shape == (1, 4, 6)
    with pytest.raises(DataError, match=r"list\.txt:1: image must be readable, got No such file"):
        ImageListReader(root + "list.txt", root_folder=root + "nowhere/").read(0)
    with pytest.raises(ConfigError, match="new_height and new_width must be given together, got 4 and 0"):
        ImageListReader(root + "list.txt", new_height=4)
