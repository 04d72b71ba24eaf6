"""`dtrain convert`: the flags reach the converters, and what was written is told."""

import gzip
import os
import pty
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.backends import open_reader
from dtrain.data.mean_file import read_mean
from tests.cli.running import command, dtrain, surroundings


def convert(line: str) -> int:
    """The exit status of `dtrain convert` in this process."""
    return run(["convert", *line.split()])


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six images of 12 x 10 and their list, in the working directory."""
    (tmp_path / "img").mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"img/{i}.png"), draw.integers(0, 255, (10, 12, 3), np.uint8))
        lines.append(f"{i}.png {i % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def idx(path: Path, values: np.ndarray) -> None:
    magic = {3: 2051, 1: 2049}[values.ndim]
    path.write_bytes(gzip.compress(np.array([magic, *values.shape], ">u4").tobytes() + values.tobytes()))


@pytest.fixture
def mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder like MNIST's, of few images, in the working directory."""
    (tmp_path / "idx").mkdir()
    for name, num in (("train", 5), ("t10k", 3)):
        idx(tmp_path / f"idx/{name}-images-idx3-ubyte.gz", np.full((num, 28, 28), 7, np.uint8))
        idx(tmp_path / f"idx/{name}-labels-idx1-ubyte.gz", np.arange(num, dtype=np.uint8))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_imageset_takes_caffes_flags(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--resize_height=8 --resize_width=6 --gray=true -shuffle -backend=lmdb -check_size"
    assert convert(f"imageset {flags} img/ list.txt out") == 0
    assert capsys.readouterr().out.startswith("wrote out: 6 records\n")
    reader = open_reader("out", "LMDB")
    records = [reader.read(i) for i in range(6)]
    reader.close()
    assert {record.pixels.shape for record in records if record.pixels is not None} == {(1, 8, 6)}
    labels = [int(record.labels[0]) for record in records]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]
    assert labels != [0, 1, 2, 0, 1, 2]


def test_imageset_stores_encoded_images(images: Path) -> None:
    assert convert("imageset -encoded -encode_type=jpg img/ list.txt out") == 0
    reader = open_reader("out", "LMDB")
    encoded = reader.read(0).encoded
    reader.close()
    assert encoded is not None
    assert bytes(encoded)[:2] == b"\xff\xd8"


def test_mean_is_written_once_and_over_on_demand(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("imageset img/ list.txt out") == 0
    assert convert("mean out mean.binaryproto") == 0
    assert "wrote mean.binaryproto: mean of shape 3 x 10 x 12" in capsys.readouterr().out
    drawn = np.stack([cv2.imread(f"img/{i}.png").transpose(2, 0, 1) for i in range(6)])
    np.testing.assert_allclose(read_mean("mean.binaryproto"), drawn.mean(0), rtol=1e-6)
    assert convert("mean out mean.binaryproto") == 1
    assert "mean.binaryproto: must not exist yet" in capsys.readouterr().err
    assert convert("mean out mean.binaryproto --overwrite") == 0


def test_mnist_tells_the_next_command_where_a_config_reads_it(
    mnist: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert("mnist idx data/mnist") == 0
    told = capsys.readouterr().out
    assert "wrote data/mnist/mnist_train_lmdb: 5 records\n" in told
    assert "next: name it as data_param source" in told
    (mnist / "configs/lenet").mkdir(parents=True)
    sources = "".join(
        f'layer {{ name: "d" type: "Data" data_param {{ source: "data/mnist/mnist_{name}_lmdb" }} }}\n'
        for name in ("train", "test")
    )
    (mnist / "configs/lenet/net.prototxt").write_text(sources)
    (mnist / "configs/lenet/solver.prototxt").write_text('net: "configs/lenet/net.prototxt"\n')
    assert convert("mnist idx data/mnist --overwrite") == 0
    assert "next: mpirun -n 2 dtrain configs/lenet/solver.prototxt\n" in capsys.readouterr().out
    assert convert("mnist idx elsewhere") == 0
    assert "next: mpirun" not in capsys.readouterr().out


def test_what_exists_is_not_overwritten_unasked(mnist: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert("mnist idx out") == 0
    assert convert("mnist idx out") == 1
    told = capsys.readouterr().err
    assert told.startswith(
        "error: out/mnist_train_lmdb: must not exist yet, got an existing one; pass --over"
    )
    assert told.count("\n") == 1


def test_cifar10_of_a_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "test"):
        for label in ("cat", "truck"):
            folder = tmp_path / "src" / name / label
            folder.mkdir(parents=True)
            cv2.imwrite(str(folder / "0.png"), np.full((32, 32, 3), 9, np.uint8))
    assert convert(f"cifar10 {tmp_path}/src {tmp_path}/out") == 0
    told = capsys.readouterr().out
    assert f"wrote {tmp_path}/out/cifar10_train_lmdb: 2 records" in told
    assert f"wrote {tmp_path}/out/mean.binaryproto\n" in told
    assert (tmp_path / "out/mean.binaryproto").exists()


def test_converting_under_mpirun_is_refused_once(mnist: Path) -> None:
    done = dtrain("convert", "mnist", "idx", "out", at=mnist, ranks=2)
    assert done.status == 1
    (line,) = done.faults
    assert line.endswith(
        "must be 1 for dtrain convert, which one process does, got 2; start it without mpirun"
    )
    assert not (mnist / "out").exists()


def test_a_terminal_shows_how_far_it_is(mnist: Path) -> None:
    controller, terminal = pty.openpty()
    environment = {**surroundings(), "TERM": "xterm"}
    arguments = command(["convert", "mnist", "idx", "out"], 1)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=terminal, env=environment)
    os.close(terminal)
    seen = b""
    while True:
        try:
            seen += os.read(controller, 65536)
        except OSError:  # Linux says EIO once the other side is gone
            break
    os.close(controller)
    assert process.wait(30) == 0
    assert b"records" in seen
