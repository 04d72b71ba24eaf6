"""Any source to sharded LMDB, Arrow and Parquet: nothing lost, restartable, and told from what is bad."""

import os
import struct
import subprocess
import sys
import tarfile
import threading

import cv2
import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.backends import backend_of, open_reader
from dtrain.data.convert import shard_formats
from dtrain.data.convert import shards as shards_module
from dtrain.data.convert.items import FileItems
from dtrain.data.convert.recode import Recode
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.convert.sources import open_items
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.errors import ConfigError, DataError
from tests.data.sources import images, jpeg_of, lmdb_of


def contents(path):
    """(labels, bytes of the image) of every record."""
    reader = open_reader(str(path), backend_of(str(path)))
    records = [reader.read(n) for n in range(len(reader))]
    reader.close()
    return [(r.labels, bytes(r.encoded) if r.pixels is None else r.pixels.tobytes()) for r in records]


def tree_of(folder, classes=("ant", "bee", "cow"), per_class=5, size=(40, 60)):
    """FOLDER/CLASS/N.jpg; the bytes by name."""
    found = {}
    for label, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(per_class):
            content = jpeg_of(images(1, (3, *size), seed=100 * label + n)[0])
            (folder / name / f"{n}.jpg").write_bytes(content)
            found[f"{name}/{n}.jpg"] = (label, content)
    return found


@pytest.mark.parametrize("shards", [1, 4])
@pytest.mark.parametrize("to", ["lmdb", "arrow", "parquet"])
def test_a_folder_of_classes_keeps_every_byte_in_every_format(tmp_path, to, shards):
    found = tree_of(tmp_path / "tree")
    items = open_items(str(tmp_path / "tree"))
    seen = []
    out = str(tmp_path / "out")
    assert convert_shards(items, out, Layout(format=to, shards=shards), threads=3, progress=seen.append) == 15
    expected = [((float(label),), content) for _, (label, content) in sorted(found.items())]
    assert contents(out) == expected
    assert seen[-1] == 15
    assert sorted(os.listdir(tmp_path)) == ["out", "tree"]
    back = convert_shards(open_items(out), str(tmp_path / "back"), Layout(format="lmdb", shards=2))
    assert back == 15
    assert contents(tmp_path / "back") == expected


def test_a_sharded_lmdb_names_shard_and_key_and_gives_the_same_batches(tmp_path):
    tree_of(tmp_path / "tree")
    convert_shards(open_items(str(tmp_path / "tree")), f"{tmp_path}/out", Layout(format="lmdb", shards=3))
    reader = open_reader(f"{tmp_path}/out", "LMDB")
    assert reader.where(11) == f"{tmp_path}/out/part-00002-of-00003: record 1 (key 00000001_cow/1.jpg)"
    with reader.datums(np.array([14, 0, 7, 14])) as messages:
        values = [messages.bytes_of(n) for n in range(4)]
        labels = [reader.read(n).labels[0] for n in (14, 0, 7, 14)]
        assert labels == [2, 0, 1, 2]
        assert bytes(values[0]) == bytes(values[3]) != bytes(values[1])
    reader.close()


def test_raw_pixels_go_to_arrow_and_back(tmp_path):
    pixels = images(23)
    source = lmdb_of(tmp_path / "db", pixels)
    convert_shards(open_items(source), f"{tmp_path}/arrow", Layout(format="arrow", shards=2))
    convert_shards(open_items(f"{tmp_path}/arrow"), f"{tmp_path}/back", Layout(format="lmdb"))
    assert contents(tmp_path / "back") == contents(source) == contents(tmp_path / "arrow")
    assert os.listdir(tmp_path / "back") == ["data.mdb"]


def test_shrinking_keeps_the_form_and_small_images_as_they_are(tmp_path):
    tree_of(tmp_path / "tree", ("ant",), 2, (40, 60))
    tree_of(tmp_path / "tree", ("bee",), 1, (20, 30))
    out = str(tmp_path / "out")
    convert_shards(open_items(f"{tmp_path}/tree"), out, Layout(format="arrow"), Recode(short_side=25))
    shapes = [
        cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape for _, content in contents(out)
    ]
    assert shapes == [(25, 38, 3), (25, 38, 3), (20, 30, 3)]
    assert contents(out)[2][1] == (tmp_path / "tree/bee/0.jpg").read_bytes()
    convert_shards(
        open_items(f"{tmp_path}/tree"),
        f"{tmp_path}/raw",
        Layout(format="lmdb"),
        Recode(width=9, height=8, raw=True),
    )
    assert {len(content) for _, content in contents(tmp_path / "raw")} == {3 * 8 * 9}


def test_a_tar_of_tars_is_read_where_its_images_lie(tmp_path):
    found = tree_of(tmp_path / "tree")
    with tarfile.open(tmp_path / "train.tar", "w") as outer:
        for name in ("bee", "ant", "cow"):
            with tarfile.open(tmp_path / f"{name}.tar", "w") as inner:
                for n in range(5):
                    inner.add(tmp_path / "tree" / name / f"{n}.jpg", f"{n}.jpg")
            outer.add(tmp_path / f"{name}.tar", f"{name}.tar")
    items = open_items(str(tmp_path / "train.tar"))
    assert [items.name_of(n) for n in range(15)] == sorted(found)
    got = {items.name_of(n): (items.read(n).labels[0], bytes(items.read(n).encoded)) for n in range(15)}
    assert got == found
    (tmp_path / "classes.txt").write_text("cow a large animal\nant\nbee\n")
    other = open_items(str(tmp_path / "train.tar"), classes_file=str(tmp_path / "classes.txt"))
    assert [other.read(n).labels[0] for n in (0, 5, 10)] == [1, 2, 0]
    items.close()
    items.close()
    with tarfile.open(tmp_path / "val.tar", "w") as flat:
        flat.add(tmp_path / "tree/bee/3.jpg", "ILSVRC_1.JPEG")
    (tmp_path / "val.txt").write_text("ILSVRC_1.JPEG 65\n")
    assert open_items(f"{tmp_path}/val.tar", list_file=f"{tmp_path}/val.txt").read(0).labels == (65,)
    (tmp_path / "val.txt").write_text("other.JPEG 65\n")
    with pytest.raises(DataError, match=r"val\.tar: the list must hold every image, got none of ILSVRC_1"):
        open_items(f"{tmp_path}/val.tar", list_file=f"{tmp_path}/val.txt")
    with pytest.raises(DataError, match=r"val\.tar: images must lie in a folder or tar of their class"):
        open_items(f"{tmp_path}/val.tar")
    (tmp_path / "z.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    with pytest.raises(DataError, match="must be a tar file that is not compressed"):
        open_items(f"{tmp_path}/z.tar")


def test_idx_files_cifar_batches_and_lists_are_sources(tmp_path):
    pixels = images(6, (28, 28))
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 6, 28, 28) + pixels.tobytes())
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 6) + bytes(range(6)))
    items = open_items(f"{tmp_path}/t10k-images-idx3-ubyte")
    assert items.read(4).labels == (4,)
    np.testing.assert_array_equal(items.read(4).pixels, pixels[4][None])
    rows = images(4, (3074,))
    for label_bytes in (1, 2):
        (tmp_path / "batch.bin").write_bytes(rows[:, : label_bytes + 3072].tobytes())
        items = open_items(f"{tmp_path}/batch.bin")
        assert [items.read(n).labels[0] for n in range(4)] == rows[:, label_bytes - 1].tolist()
        assert items.read(2).pixels.ravel().tolist() == rows[2, label_bytes : label_bytes + 3072].tolist()
    found = tree_of(tmp_path / "tree")
    (tmp_path / "list.txt").write_text("bee/1.jpg 7\n")
    listed = open_items(f"{tmp_path}/tree", list_file=f"{tmp_path}/list.txt")
    assert (len(listed), listed.read(0).labels, bytes(listed.read(0).encoded)) == (
        1,
        (7,),
        found["bee/1.jpg"][1],
    )


def test_a_conversion_that_was_stopped_goes_on_after_its_last_part(tmp_path, monkeypatch):
    tree_of(tmp_path / "tree")
    out, layout = str(tmp_path / "out"), Layout(format="lmdb", shards=5, shuffle=True)
    whole = str(tmp_path / "whole")
    convert_shards(open_items(f"{tmp_path}/tree"), whole, layout)
    broken = tmp_path / "tree/cow/2.jpg"
    content = broken.read_bytes()
    broken.unlink()
    with pytest.raises(DataError, match=r"image must be readable, got No such file .*cow/2\.jpg"):
        convert_shards(_again(tmp_path), out, layout)
    assert not os.path.exists(out)
    done = sorted(name for name in os.listdir(out + ".part") if name.startswith("part-"))
    assert 0 < len(done) < 5
    broken.write_bytes(content)
    written = []
    write = shards_module._write

    def noting(path, *words, as_messages):
        written.append(path)
        write(path, *words, as_messages=as_messages)

    monkeypatch.setattr(shards_module, "_write", noting)
    with pytest.raises(DataError, match=r"must be of the same conversion, got parts of another"):
        convert_shards(_again(tmp_path), out, Layout(format="lmdb", shards=5))
    convert_shards(_again(tmp_path), out, layout)
    assert len(written) == 5 - len(done)
    assert contents(out) == contents(whole)
    assert sorted(os.listdir(out)) == sorted(os.listdir(whole))


def _again(folder):
    """The same tree, read with a list that was made while all files were there."""
    entries = [
        (f"{name}/{n}.jpg", label) for label, name in enumerate(("ant", "bee", "cow")) for n in range(5)
    ]
    return FileItems(f"{folder}/tree", f"{folder}/tree/", entries)


def test_a_killed_conversion_leaves_nothing_that_looks_whole(tmp_path):
    tree_of(tmp_path / "tree", per_class=12)
    code = f"""
import os, signal
from dtrain.data.convert import shards
from dtrain.data.convert.sources import open_items
def told(num):
    if num >= 18:
        os.kill(os.getpid(), signal.SIGKILL)
shards._TOLD_EVERY = 1
items = open_items({str(tmp_path / "tree")!r})
layout = shards.Layout(format="arrow", shards=4)
shards.convert_shards(items, {str(tmp_path / "out")!r}, layout, progress=told)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert not (tmp_path / "out").exists()
    layout = Layout(format="arrow", shards=4)
    assert convert_shards(open_items(f"{tmp_path}/tree"), f"{tmp_path}/out", layout) == 36
    assert len(contents(tmp_path / "out")) == 36


def test_a_second_writer_is_refused_while_the_first_is_at_work(tmp_path):
    tree_of(tmp_path / "tree")
    inside, leave = threading.Event(), threading.Event()

    def told(num):
        inside.set()
        leave.wait(20)

    layout = Layout(format="lmdb")
    words = (open_items(f"{tmp_path}/tree"), f"{tmp_path}/out", layout)
    shards_module_told = shards_module._TOLD_EVERY
    shards_module._TOLD_EVERY = 1
    try:
        first = threading.Thread(target=convert_shards, args=words, kwargs={"progress": told})
        first.start()
        assert inside.wait(20)
        with pytest.raises(DataError, match="must have one writer, got another conversion at work there"):
            convert_shards(*words)
    finally:
        shards_module._TOLD_EVERY = shards_module_told
        leave.set()
        first.join()
    assert len(contents(tmp_path / "out")) == 15


def test_what_was_written_is_compared_with_what_should_have_been(tmp_path, monkeypatch):
    tree_of(tmp_path / "tree")
    monkeypatch.setattr(shard_formats, "datum_of", lambda record: encode_image(b"other", 1))
    with pytest.raises(DataError, match=r"record 0 .* must be what was written, got other bytes"):
        convert_shards(open_items(f"{tmp_path}/tree"), f"{tmp_path}/out", Layout(format="lmdb"))
    assert not (tmp_path / "out").exists()


def test_layouts_that_cannot_be_are_refused(tmp_path):
    tree_of(tmp_path / "tree")
    items = open_items(f"{tmp_path}/tree")
    with pytest.raises(ConfigError, match='unknown format "lmbd"; did you mean "lmdb"'):
        convert_shards(items, f"{tmp_path}/out", Layout(format="lmbd"))
    with pytest.raises(ConfigError, match=r"shards must be from 1 to the number of records \(15\), got 16"):
        convert_shards(items, f"{tmp_path}/out", Layout(format="lmdb", shards=16))
    with pytest.raises(DataError, match="must exist, got no such path"):
        open_items(f"{tmp_path}/none")


def test_the_commands_convert_and_check(tmp_path, capsys):
    tree_of(tmp_path / "tree")
    out = str(tmp_path / "out")
    assert run(["convert", "records", f"{tmp_path}/tree", out, "--to", "arrow", "--shards", "2"]) == 0
    assert "out: 15 records" in capsys.readouterr().out
    assert run(["data", "info", out]) == 0
    told = capsys.readouterr().out
    assert "out: 15 records" in told
    assert "JPEG (15)" in told
    assert "3 x 40 x 60 (15)" in told
    assert "3 different: 0 (5), 1 (5), 2 (5)" in told
    assert run(["data", "check", out]) == 0
    from dtrain.data.convert.lmdb_writer import write_lmdb

    good = encode_pixels(images(1)[0], 0)
    write_lmdb(f"{tmp_path}/db", [(b"%08d" % n, b"\xff" if n == 3 else good) for n in range(400)])
    capsys.readouterr()
    assert run(["data", "check", f"{tmp_path}/db", "--threads", "2"]) == 2
    told = capsys.readouterr().out
    assert f"bad: {tmp_path}/db: record 3 (key 00000003): must be a Datum message" in told
    assert "400 records, 1 of them bad" in told
    assert run(["data", "check", f"{tmp_path}/none"]) == 1


def test_leveldb_is_read_in_the_order_of_its_keys(tmp_path):
    import plyvel

    pixels = images(12)
    path = str(tmp_path / "level")
    with plyvel.DB(path, create_if_missing=True) as database:
        for n in reversed(range(12)):
            database.put(b"%05d" % n, encode_pixels(pixels[n], n))
    assert backend_of(path) == "LEVELDB"
    convert_shards(open_items(path), f"{tmp_path}/db", Layout(format="lmdb"))
    assert contents(tmp_path / "db") == contents(path)
    reader = open_reader(path, "LEVELDB")
    with pytest.raises(DataError, match="must be a LevelDB that no other process has open"):
        open_reader(path, "LEVELDB")
    reader.close()
    with pytest.raises(DataError, match="must be open, got a read after close"):
        reader.read(0)
    with pytest.raises(DataError, match="backend must be LMDB for an LMDB, got LEVELDB"):
        open_reader(f"{tmp_path}/db", "LEVELDB")
