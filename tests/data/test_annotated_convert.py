"""`dtrain convert annotated`: Pascal VOC's XML files become AnnotatedDatum records."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.backends import open_reader
from dtrain.data.convert.annotated import convert_annotated
from dtrain.data.reader import DatumReader
from dtrain.errors import ConfigError, DataError
from dtrain.proto import dtrain_pb2 as pb
from tests.data.annotated_records import annotated, annotated_lmdb
from tests.data.sources import images

LABEL_MAP = """
item { name: "none_of_the_above" label: 0 display_name: "background" }
item { name: "cat" label: 1 display_name: "cat" }
item { name: "dog" label: 2 display_name: "dog" }
"""
OBJECTS = """
<object><name>dog</name><bndbox><xmin>4</xmin><ymin>5</ymin><xmax>20</xmax><ymax>10</ymax></bndbox>
  <difficult>1</difficult></object>
<object><name>cat</name><difficult>0</difficult>
  <bndbox><ymin>0</ymin><xmin>1</xmin><xmax>39.5</xmax><ymax>20</ymax></bndbox>
  <part><name>head</name><bndbox><xmin>0</xmin></bndbox></part></object>
<object><name>dog</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>
"""
SIZE = "<size><width>40</width><height>20</height><depth>3</depth></size>"


@pytest.fixture
def voc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images of 40 x 20, one with three objects and one with none; list, label map."""
    monkeypatch.chdir(tmp_path)
    for n, (objects, size) in enumerate(((OBJECTS, SIZE), ("", ""))):
        cv2.imwrite(f"{n}.jpg", np.full((20, 40, 3), 100 + n, np.uint8))
        Path(f"{n}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    Path("list.txt").write_text("0.jpg 0.xml\n1.jpg 1.xml\n")
    Path("map.prototxt").write_text(LABEL_MAP)
    return tmp_path


def records_of(path: Path) -> dict[str, pb.AnnotatedDatum]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as txn:
        return {key.decode(): pb.AnnotatedDatum.FromString(value) for key, value in txn.cursor()}


def test_objects_are_grouped_by_class_and_told_as_shares_of_the_image(voc: Path) -> None:
    assert run(["convert", "annotated", f"{voc}/", "list.txt", "map.prototxt", "out"]) == 0
    found = records_of(voc / "out")
    assert list(found) == ["00000000_0.jpg", "00000001_1.jpg"]
    first = found["00000000_0.jpg"]
    assert first.type == pb.AnnotatedDatum.BBOX
    assert first.HasField("type")
    assert first.datum.encoded
    assert first.datum.data == (voc / "0.jpg").read_bytes()
    assert (first.datum.channels, first.datum.height, first.datum.width) == (3, 20, 40)
    dogs, cats = first.annotation_group
    assert (dogs.group_label, cats.group_label) == (2, 1)
    assert [one.instance_id for one in dogs.annotation] == [0, 1]
    boxes = [[b.xmin, b.ymin, b.xmax, b.ymax] for b in (one.bbox for one in dogs.annotation)]
    np.testing.assert_allclose(boxes, [[0.1, 0.25, 0.5, 0.5], [0, 0, 0.05, 0.1]], rtol=1e-6)
    assert [one.bbox.difficult for one in dogs.annotation] == [True, False]
    assert cats.annotation[0].bbox.xmax == pytest.approx(39.5 / 40)
    second = found["00000001_1.jpg"]
    assert second.HasField("type")
    assert not second.annotation_group


def test_a_shuffle_keeps_all_and_numbers_them_in_the_new_order(voc: Path) -> None:
    lines = [f"{n % 2}.jpg {n % 2}.xml" for n in range(20)]
    Path("list.txt").write_text("\n".join(lines) + "\n")
    orders = []
    for seed in (1, 2):
        assert convert_annotated("", "list.txt", "map.prototxt", f"out{seed}", shuffle=True, seed=seed) == 20
        orders.append(list(records_of(voc / f"out{seed}")))
    assert orders[0] != orders[1]
    assert [key[:8] for key in orders[0]] == [f"{n:08d}" for n in range(20)]


def test_sizes_in_the_file_count_and_a_difference_is_told(
    voc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = SIZE.replace("<width>40", "<width>80")
    Path("0.xml").write_text(f"<annotation>{other}{OBJECTS}</annotation>")
    with caplog.at_level(logging.WARNING):
        convert_annotated("", "list.txt", "map.prototxt", "out")
    assert "size 80 x 20 is not the image's, 40 x 20" in caplog.text
    first = records_of(voc / "out")["00000000_0.jpg"]
    assert first.annotation_group[0].annotation[0].bbox.xmax == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("0.xml", "<name>cat", "<name>cta", '0.xml: object 2: unknown name "cta"; did you mean "cat"?'),
        ("0.xml", "<ymin>5</ymin>", "", "0.xml: object 1: bndbox/ymin must be a number, got none"),
        ("0.xml", "<ymin>5</ymin>", "<ymin>x</ymin>", "bndbox/ymin must be a number, got 'x'"),
        ("0.xml", "<width>40", "<width>0", "0.xml: size must be above 0, got 0 x 20"),
        ("0.xml", "</annotation>", "", "0.xml: must be an XML file, got no element found"),
        ("list.txt", "1.xml", "2.xml", "list.txt:2: XML file must be readable, got No such file"),
        (
            "list.txt",
            "1.jpg 1.xml",
            "1.jpg",
            'list.txt:2: line must be an image and its XML file, got "1.jpg"',
        ),
        ("list.txt", "0.jpg", "9.jpg", "list.txt:1: image must be readable"),
    ],
)
def test_what_cannot_be_read_is_named(voc: Path, file: str, old: str, new: str, told: str) -> None:
    content = Path(file).read_text()
    assert old in content
    Path(file).write_text(content.replace(old, new))
    with pytest.raises(DataError) as caught:
        convert_annotated("", "list.txt", "map.prototxt", "out")
    assert told in str(caught.value)
    assert not (voc / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            '"dog" label: 2',
            '"dog" label: 1',
            'map.prototxt:4: label must be given to one item, got 1 for "dog"',
        ),
        ('name: "dog"', 'name: "cat"', 'map.prototxt:4: name must be given to one item, got "cat" again'),
    ],
)
def test_a_label_map_gives_each_class_one_label(voc: Path, old: str, new: str, told: str) -> None:
    Path("map.prototxt").write_text(LABEL_MAP.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        convert_annotated("", "list.txt", "map.prototxt", "out")
    assert str(caught.value).startswith(told)


def test_the_commands_check_a_database_of_images_with_boxes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box = (0.1, 0.1, 0.8, 0.8)
    messages = [annotated(image, [(n % 2 + 1, box), (4, box)]) for n, image in enumerate(images(6))]
    whole = annotated_lmdb(tmp_path / "whole", messages)
    assert run(["data", "check", whole]) == 0
    told = capsys.readouterr().out
    assert "6 records, 0 of them bad" in told
    assert "PNG (6)" in told
    assert "labels: 2 different: 1 4 (3), 2 4 (3)" in told
    messages[0].datum.data = b"none"
    broken = annotated_lmdb(tmp_path / "broken", messages)
    assert run(["data", "check", broken]) == 2
    told = capsys.readouterr().out
    assert f"bad: {broken}: record 0 (key 00000000_0.png): must be an image that OpenCV decodes" in told
    assert "6 records, 1 of them bad" in told


def database(path: Path) -> str:
    pixels = images(7, (3, 8, 9))
    objects = [[(n % 3, (0.1, 0.1 * n, 0.5, 0.9))] * n for n in range(7)]
    return annotated_lmdb(path, [annotated(p, o) for p, o in zip(pixels, objects, strict=True)])


def values_of(source: str, backend: str) -> list[bytes]:
    reader = open_reader(source, backend)
    assert isinstance(reader, DatumReader)
    with reader.datums(np.arange(len(reader))) as messages:
        values = [messages.bytes_of(n).tobytes() for n in range(len(reader))]
    reader.close()
    return values


def test_records_with_boxes_go_from_a_database_to_another_to_the_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = database(tmp_path / "db")
    there, back = f"{tmp_path}/leveldb", f"{tmp_path}/lmdb"
    assert run(["convert", "records", source, there, "--to", "leveldb"]) == 0
    assert run(["convert", "records", there, back, "--shards", "3"]) == 0
    assert f"wrote {back}: 7 records" in capsys.readouterr().out
    assert values_of(there, "LEVELDB") == values_of(back, "LMDB") == values_of(source, "LMDB")
    mixed = f"{tmp_path}/mixed"
    assert run(["convert", "records", source, mixed, "--shuffle"]) == 0
    assert values_of(mixed, "LMDB") != values_of(source, "LMDB")
    assert sorted(values_of(mixed, "LMDB")) == sorted(values_of(source, "LMDB"))


@pytest.mark.parametrize("words", ["--to arrow", "--to hdf5", "--to images --raw", "--raw", "--short-side 4"])
def test_records_with_boxes_are_not_made_what_would_lose_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    source = database(tmp_path / "db")
    assert run(["convert", "records", source, f"{tmp_path}/out", *words.split()]) == 1
    told = capsys.readouterr().err
    what = f"error: {source}: holds images with boxes (AnnotatedDatum), of which the "
    if "--to" in words:
        assert told == f"{what}format must be lmdb or leveldb, got {words.split()[1]}\n"
    else:
        assert told.startswith(f"{what}images must stay as they are, got another size, encoding or colour; ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db"]


def test_a_damaged_record_with_boxes_stops_the_copy_and_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = database(tmp_path / "db")
    with lmdb.open(source, lock=False) as environment, environment.begin(write=True) as txn:
        txn.put(b"00000004_4.png", b"\xff\xff\xff")
    assert run(["convert", "records", source, f"{tmp_path}/out"]) == 1
    assert f"{source}: record 4 (key 00000004_4.png): must be an AnnotatedDatum" in capsys.readouterr().err
