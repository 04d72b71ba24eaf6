"""What users point `dtrain data` and `dtrain convert` at by mistake: told in one line, never a traceback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dtrain.cli.main import run
from dtrain.data.backends import open_reader
from dtrain.data.decode import decode_image
from dtrain.data.mean_file import read_mean
from dtrain.errors import DataError
from tests.cli.running import surroundings
from tests.data.sources import images, jpeg_of, lmdb_of

NUM = 12
PIXELS = images(NUM, (3, 20, 24))


@pytest.fixture
def classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """imgs/cat and imgs/dog with six PNGs each; the current folder is the one that holds imgs."""
    monkeypatch.chdir(tmp_path)
    for n, image in enumerate(PIXELS):
        folder = tmp_path / "imgs" / ("cat", "dog")[n % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(f"{folder}/{n}.png", image.transpose(1, 2, 0))
    return tmp_path


def fault(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that the command says on stderr."""
    capsys.readouterr()
    assert run(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return str(line)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("data.mdb", b"", "must be an LMDB, got an empty file"),
        ("text.mdb", b"hello\n", "must be an LMDB, got a file that LMDB refuses"),
        (
            "x.arrow",
            b"ARROW1\0\0" + b"\0" * 99,
            "it begins as an Arrow file: if it was cut, copy or convert it",
        ),
        ("x.parquet", b"PAR1" + b"\0" * 99, "it begins as a Parquet file: if it was cut, copy or convert it"),
        ("x.arrow", b"hello\n", "must be an Arrow IPC file or a Parquet file, got File is too small: 6"),
        ("x.h5", b"hello\n", "must be a readable HDF5 file, got"),
        (
            "train-images-idx3-ubyte",
            b"hello\n",
            "must be an idx file with magic number 2051, got a file of 6 b",
        ),
        ("train-images-idx3-ubyte", b"", "must be an idx file with magic number 2051, got a file of 0 bytes"),
        ("x.bin", b"hello\n", "length must be a multiple of 3073 (CIFAR-10) or 3074 (CIFAR-100), got 6"),
        ("x.tar", b"hello\n", "must be a tar file that is not compressed"),
        ("x.txt", b"hello\n", ':1: line must be a path, a space and an integer label, got "hello"'),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    line = fault(["data", "info", f"{tmp_path}/{name}"], capsys)
    assert line.startswith(f"error: {tmp_path}/{name}:")
    assert told in line


def test_an_empty_lmdb_file_in_a_folder_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.mdb").touch()
    line = fault(["data", "check", str(tmp_path)], capsys)
    assert line == f"error: {tmp_path}: must be an LMDB, got an empty file; copy or convert it again"


def test_a_folder_of_nothing_says_what_it_could_hold(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (classes / "empty").mkdir()
    line = fault(["data", "info", "empty"], capsys)
    assert line == "error: empty: must hold a data set, or images as CLASS/NAME.jpg or .png, got none"
    shutil.copy("imgs/cat/0.png", "empty/0.png")
    assert fault(["data", "info", "empty"], capsys).endswith(
        "got 1 outside any folder of a class; --list tells their labels"
    )
    line = fault(["data", "info", "imgs", "--backend", "hdf5"], capsys)
    assert line == "error: imgs: must hold .h5 or .hdf5 files, got none"


@pytest.mark.parametrize("suffix", [".tar.gz", ".tgz", ".tar"])
def test_a_compressed_tar_says_what_to_do_with_it(
    classes: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    with tarfile.open(f"imgs{suffix}", "w:gz") as tar:
        tar.add("imgs")
    line = fault(["data", "info", f"imgs{suffix}"], capsys)
    assert f"imgs{suffix}: must be a tar file that is not compressed" in line
    assert line.endswith("; gunzip it first")


def test_image_files_that_a_conversion_wrote_are_read_with_their_list(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", "records", "imgs", "files", "--to", "images"]) == 0
    assert run(["data", "check", "files"]) == 0
    shown = capsys.readouterr().out
    assert "files/list.txt: 12 records, 0 of them bad\n" in shown
    assert "labels: 2 different: 0 (6), 1 (6)\n" in shown
    assert run(["convert", "records", "files", "db"]) == 0
    reader = open_reader("db", "LMDB")
    assert [reader.read(n).labels for n in range(NUM)] == [(0,)] * 6 + [(1,)] * 6
    reader.close()


def test_info_names_the_first_bad_records(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (classes / "list.txt").write_text("".join(f"imgs/cat/{n}.png 0\n" for n in range(0, 8)))
    assert run(["data", "info", "list.txt"]) == 2
    shown = capsys.readouterr().out.splitlines()
    what = "image must be readable, got No such file or directory for"
    assert shown[:5] == [
        "list.txt: 8 records",
        f"bad: list.txt:2: {what} imgs/cat/1.png; check root_folder",
        f"bad: list.txt:4: {what} imgs/cat/3.png; check root_folder",
        f"bad: list.txt:6: {what} imgs/cat/5.png; check root_folder",
        "bad: and 1 more",
    ]


@pytest.mark.parametrize(
    "words", ["--short-side -5", "--quality 101", "--resize-width -1 --resize-height -1"]
)
def test_sizes_that_no_image_has_are_wrong_usage(
    classes: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert run(["convert", "records", "imgs", "out", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: command line: Invalid value for '{words.split()[0]}'")
    assert sorted(os.listdir()) == ["imgs"]


@pytest.mark.parametrize("option", ["--list", "--classes"])
def test_labels_are_told_only_for_what_has_none(
    classes: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    (classes / "list.txt").write_text("imgs/cat/0.png 0\n")
    lmdb_of(classes / "db", PIXELS)
    for source in ("db", "list.txt"):
        line = fault(["convert", "records", source, "out", option, "list.txt"], capsys)
        assert line == (
            f"error: {source}: --list and --classes must be absent where records have labels of their own, "
            "got list.txt"
        )


@pytest.mark.parametrize("start", ["imgs", "pixels"])
@pytest.mark.parametrize("words", ["", "--raw", "--short-side 10", "--short-side 99"])
def test_gray_has_every_image_written_with_one_channel(classes: Path, start: str, words: str) -> None:
    lmdb_of(classes / "pixels", PIXELS)
    assert run(["convert", "records", start, "out", "--gray", *words.split()]) == 0
    reader = open_reader("out", "LMDB")
    records = [reader.read(n) for n in range(NUM)]
    reader.close()
    shape = (1, 10, 12) if words == "--short-side 10" else (1, 20, 24)
    for record in records:
        found = record.pixels
        if start == "imgs" and words != "--raw":
            assert record.encoded is not None
            found = decode_image(bytes(record.encoded), "as stored", record.where)
        assert found is not None
        assert found.shape == shape
    if words == "--raw" or (start == "pixels" and words != "--short-side 10"):
        first = cv2.cvtColor(np.ascontiguousarray(PIXELS[0].transpose(1, 2, 0)), cv2.COLOR_BGR2GRAY)
        assert records[0].pixels is not None
        # A decoder of PNGs rounds to grey in its own way.
        np.testing.assert_allclose(records[0].pixels[0].astype(int), first, atol=1 if start == "imgs" else 0)


@pytest.mark.parametrize("kind", ["lmdb", "arrow", "leveldb", "hdf5"])
def test_the_mean_is_of_what_lies_there(classes: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    raw = ["--raw"] if kind == "hdf5" else []
    assert run(["convert", "records", "imgs", "out", "--to", kind, *raw]) == 0
    assert run(["convert", "mean", "out", "mean.binaryproto"]) == 0
    np.testing.assert_allclose(read_mean("mean.binaryproto"), PIXELS.mean(axis=0), rtol=1e-6)
    line = fault(["convert", "mean", "absent", "other.binaryproto"], capsys)
    assert "absent: must be an LMDB, got no such path" in line


def parquet_of(path: Path, labels: Sequence[object]) -> str:
    jpegs = [jpeg_of(image) for image in PIXELS[: len(labels)]]
    pq.write_table(pa.table({"image": jpegs, "label": labels}), path)
    return str(path)


def test_a_label_that_no_datum_holds_is_named(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = parquet_of(classes / "a.parquet", [0, 2**31])
    for kind in ("lmdb", "leveldb", "images"):
        line = fault(["convert", "records", source, "out", "--to", kind], capsys)
        assert f"{source}: row 1 (record 1): a " in line
        assert line.endswith("must have a label from -2147483648 to 2147483647, got 2147483648")


def test_files_whose_rows_differ_in_form_are_found_before_training_does(
    classes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (classes / "mixed").mkdir()
    parquet_of(classes / "mixed" / "a.parquet", [0, 1])
    parquet_of(classes / "mixed" / "b.parquet", [[0, 1], [2, 3]])
    assert run(["data", "check", "mixed", "--threads", "1"]) == 2
    told = (
        "mixed/b.parquet: all rows of a source must be alike, got encoded images with 2 labels after encoded "
        "images with 1 labels"
    )
    assert capsys.readouterr().out.splitlines()[:3] == [f"bad: {told}"] * 2 + [
        "mixed: 4 records, 2 of them bad"
    ]
    assert fault(["convert", "records", "mixed", "out", "--to", "arrow"], capsys) == f"error: {told}"


@pytest.mark.parametrize("kind", ["lmdb", "leveldb", "arrow", "parquet", "images", "hdf5"])
def test_names_of_any_bytes_and_with_spaces_are_converted(classes: Path, kind: str) -> None:
    strange = os.fsdecode(b"odd/caf\xff")
    os.makedirs(strange)
    shutil.copy("imgs/cat/0.png", os.path.join(strange, os.fsdecode(b"a\xfe b.PNG")))
    raw = ["--raw"] if kind == "hdf5" else []
    assert run(["convert", "records", "odd", "out", "--to", kind, *raw]) == 0
    assert run(["data", "check", "out"]) == 0


@pytest.mark.parametrize("named", ["lmdb", "leveldb", "arrow", "hdf5"])
@pytest.mark.parametrize("kind", ["lmdb", "leveldb", "parquet", "hdf5"])
def test_a_backend_that_is_not_what_lies_there_is_told_which_is(
    classes: Path, capsys: pytest.CaptureFixture[str], kind: str, named: str
) -> None:
    raw = ["--raw"] if kind == "hdf5" else []
    assert run(["convert", "records", "imgs", "out", "--to", kind, *raw]) == 0
    before = sorted(os.listdir("out"))
    found = "ARROW" if kind == "parquet" else kind.upper()
    if found == named.upper():
        assert run(["data", "info", "out", "--backend", named]) == 0
        return
    line = fault(["data", "info", "out", "--backend", named], capsys)
    assert re.match(rf"error: out: backend must be {found} for .*, got {named.upper()}", line), line
    assert line.endswith("HDF5Data" if kind == "hdf5" else f"; set `backend: {found}`")
    assert sorted(os.listdir("out")) == before, "LevelDB writes into what it opens"


def test_hdf5_files_without_rows_are_told(classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File("a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((0, 3, 4, 4)), np.zeros(0)
    assert fault(["data", "check", "a.h5"], capsys) == "error: a.h5: must hold at least one row, got none"


def leveldb_of(path: Path, num: int) -> Path:
    """Some hundred KB in one table; returns its file."""
    import plyvel

    database = plyvel.DB(str(path), create_if_missing=True)
    for n in range(num):
        database.put(b"%08d" % n, np.random.default_rng(n).bytes(600))
    database.compact_range()
    database.close()
    (table,) = path.glob("*.ldb")
    return table


@pytest.mark.parametrize("part", [0, 0.5, 0.99])
def test_a_cut_leveldb_is_refused_and_not_taken_for_a_shorter_one(tmp_path: Path, part: float) -> None:
    table = leveldb_of(tmp_path / "db", 500)
    os.truncate(table, int(part * table.stat().st_size))
    with pytest.raises(DataError, match=r"db: all keys must be readable, got IO error: .*\.ldb: Invalid arg"):
        open_reader(f"{tmp_path}/db", "LEVELDB")


def test_a_leveldb_whose_blocks_are_damaged_is_told(tmp_path: Path) -> None:
    table = leveldb_of(tmp_path / "db", 500)
    reader = open_reader(f"{tmp_path}/db", "LEVELDB")
    reader.close()
    with table.open("r+b") as file:
        file.seek(100_000)
        file.write(b"\xff" * 50_000)
    with pytest.raises(DataError, match="all keys must be readable, got Corruption: bad block"):
        open_reader(f"{tmp_path}/db", "LEVELDB")
    (tmp_path / "db" / "CURRENT").write_text("junk\n")
    with pytest.raises(DataError, match="db: must be a readable LevelDB, got Corruption: CURRENT points to"):
        open_reader(f"{tmp_path}/db", "LEVELDB")


def as_someone(arguments: list[str], at: Path) -> subprocess.CompletedProcess[str]:
    """The command of a user whom permissions bind, which they do not bind root."""
    drop = "-dac_override,-dac_read_search"
    words = [sys.executable, "-m", "dtrain.cli.main", *arguments]
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set", drop, *words]
    return subprocess.run(words, cwd=at, env=surroundings(), capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root needs setpriv to be refused anything"
)
def test_what_may_not_be_read_is_named_with_the_reason(classes: Path) -> None:
    lmdb_of(classes / "db", PIXELS)
    for words in ("arrow", "hdf5 --raw", "images"):
        assert run(["convert", "records", "imgs", words.split()[0], "--to", *words.split()]) == 0
    for name in ("list.txt", "x.bin", "x.tar"):
        (classes / name).write_text("imgs/cat/0.png 0\n")
    denied = "must be readable, got Permission denied"
    cases = {
        "imgs/cat": ("imgs", f"imgs/cat: folder {denied}"),
        "db": ("db", f"db: folder {denied}"),
        "hdf5": ("hdf5", f"hdf5: folder {denied}"),
        "arrow": ("arrow --backend arrow", f"arrow: folder {denied}"),
        "arrow/part-00000-of-00001.arrow": ("arrow", f"arrow/part-00000-of-00001.arrow: {denied}"),
        "images/list.txt": ("images", "images/list.txt: must be a readable list"),
        "list.txt": ("list.txt", "list.txt: must be a readable list, got Permission denied"),
        "x.bin": ("x.bin", f"x.bin: {denied}"),
        "x.tar": ("x.tar", f"x.tar: {denied}"),
    }
    for path, (words, told) in cases.items():
        mode = (classes / path).stat().st_mode
        (classes / path).chmod(0)
        done = as_someone(["data", "info", *words.split()], classes)
        (classes / path).chmod(mode)
        assert done.returncode == 1, (path, done.stdout, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"error: {told}")
