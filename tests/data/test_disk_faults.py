"""Full disks, folders that cannot be written, files that vanish: told in a line, nothing half done left."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from dtrain.data.arrow_reader import ArrowReader
from dtrain.data.backends import open_reader
from dtrain.data.convert.shard_formats import FORMATS
from dtrain.data.hdf5_rows import Hdf5Rows
from dtrain.errors import DataError
from tests.cli.running import command, dtrain, surroundings
from tests.data.sources import images, jpeg_of, lmdb_of

NUM = 60
PIXELS = images(NUM, (3, 40, 40))  # 288 kB in all


@pytest.fixture
def source(tmp_path: Path) -> str:
    return lmdb_of(tmp_path / "db", PIXELS)


def with_small_files(limit_bytes: int, *arguments: str, at: Path) -> subprocess.CompletedProcess[str]:
    """The command, where a file beyond that size fails as on a full disk."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        command(list(arguments), 1),
        cwd=at,
        env=surroundings(),
        preexec_fn=limit,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("to", [kind for kind in FORMATS if kind != "images"])
def test_a_conversion_that_fills_the_disk_leaves_nothing_that_looks_whole(
    source: str, tmp_path: Path, to: str
) -> None:
    words = ("convert", "records", source, "out", "--to", to)
    done = with_small_files(100_000, *words, at=tmp_path)
    assert done.returncode == 1
    assert "must be writable, got" in done.stderr
    assert "out.part/part-00000-of-00001" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert sorted(os.listdir(tmp_path)) == ["db", "out.part"]
    assert sorted(os.listdir(tmp_path / "out.part")) == ["lock", "plan.json"]
    again = dtrain(*words, at=tmp_path)
    assert again.status == 0, again.err
    assert sorted(os.listdir(tmp_path)) == ["db", "out"]


def test_image_files_that_fill_the_disk_leave_nothing_that_looks_whole(source: str, tmp_path: Path) -> None:
    done = with_small_files(3_000, "convert", "records", source, "out", "--to", "images", at=tmp_path)
    assert done.returncode == 1
    assert "out.part/part-00000-of-00001: must be writable, got [Errno 27] File too large" in done.stderr
    assert sorted(os.listdir(tmp_path / "out.part")) == ["lock", "plan.json"]


def test_the_other_converters_tell_of_a_full_disk_too(source: str, tmp_path: Path) -> None:
    done = with_small_files(100_000, "convert", "digits", "digits", at=tmp_path)
    assert done.returncode == 1
    assert "digits/digits_train_lmdb: must be writable, got" in done.stderr
    assert "MB are free there" in done.stderr
    assert os.listdir(tmp_path / "digits") == []
    done = with_small_files(9_000, "convert", "mean", source, "mean.binaryproto", at=tmp_path)
    assert done.returncode == 1
    assert "mean.binaryproto: must be writable, got" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["db", "digits"]


def unwritable(folder: Path) -> Path:
    """A folder in which nothing can be made, by root either."""
    if os.geteuid() == 0:
        return Path("/proc")
    folder.chmod(0o555)
    return folder


@pytest.mark.parametrize("words", ["records SOURCE OUT", "digits OUT", "mean SOURCE OUT"])
def test_a_folder_that_cannot_be_written_is_named(source: str, tmp_path: Path, words: str) -> None:
    (tmp_path / "closed").mkdir()
    out = unwritable(tmp_path / "closed") / "out"
    done = dtrain("convert", *words.replace("SOURCE", source).replace("OUT", str(out)).split(), at=tmp_path)
    assert done.status == 1
    assert len(done.faults) == 1, done.err
    assert f"{out}" in done.faults[0]
    assert "must be writable, got" in done.faults[0]


def test_two_conversions_to_one_place_end_with_one_whole_result_and_one_error(
    source: str, tmp_path: Path
) -> None:
    words = command(["convert", "records", source, "out", "--shards", "3", "--to", "arrow"], 1)
    both = [
        subprocess.Popen(words, cwd=tmp_path, env=surroundings(), stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    faults = [process.communicate(timeout=120)[1] for process in both]
    statuses = [process.returncode for process in both]
    assert sorted(statuses) == [0, 1], faults
    fault = faults[statuses.index(1)]
    assert (
        "must have one writer, got another conversion at work there" in fault or "must not exist yet" in fault
    )
    reader = open_reader(f"{tmp_path}/out", "ARROW")
    assert len(reader) == NUM
    reader.close()
    assert sorted(os.listdir(tmp_path)) == ["db", "out"]


NET = """
layer {{ name: "data" type: "{type}" top: "data" top: "label" {param} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 100 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def train(folder: Path, layer: str, param: str, ranks: int = 1) -> subprocess.Popen[str]:
    """A run without an end, and the file in which it logs."""
    (folder / "net.prototxt").write_text(NET.format(type=layer, param=param))
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1e-9 lr_policy: "fixed" max_iter: 1000000 display: 5 '
        "snapshot_after_train: false"
    )
    words = command(["solver.prototxt", "--plan", "off", "--log-json", "log.jsonl"], ranks)
    return subprocess.Popen(
        words, cwd=folder, env=surroundings(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_image_that_vanishes_while_training_ends_the_job_with_its_name(tmp_path: Path, ranks: int) -> None:
    for n in range(NUM):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg_of(PIXELS[n]))
    (tmp_path / "list.txt").write_text("".join(f"{n}.jpg {n}\n" for n in range(NUM)))
    param = f'image_data_param {{ source: "list.txt" root_folder: "{tmp_path}/" batch_size: 4 }}'
    process = train(tmp_path, "ImageData", param, ranks)
    assert process.stderr is not None
    told = []
    with process.stderr:
        for line in process.stderr:
            told.append(line)
            if "Iteration 5 " in line and (tmp_path / "33.jpg").exists():
                (tmp_path / "33.jpg").unlink()
    assert process.wait(60) != 0
    text = "".join(told)
    assert "list.txt:34: image must be readable, got No such file or directory for" in text
    assert f"{tmp_path}/33.jpg; check root_folder" in text


def test_a_database_that_is_removed_while_training_is_read_on(source: str, tmp_path: Path) -> None:
    """It is mapped: the file lives until it is closed."""
    process = train(tmp_path, "Data", f'data_param {{ source: "{source}" backend: LMDB batch_size: 4 }}')
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "Iteration 5 " in line:
                (Path(source) / "data.mdb").unlink()
            if "Iteration 50 " in line:
                break
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(60)
        process.stderr.close()


def test_a_parquet_file_that_vanishes_is_named_with_its_rows(tmp_path: Path) -> None:
    import pyarrow as pa

    table = pa.table({"image": [jpeg_of(image) for image in PIXELS], "label": list(range(NUM))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=20)
    reader = ArrowReader(f"{tmp_path}/a.parquet")
    reader.read(3)
    (tmp_path / "a.parquet").unlink()
    reader.read(4)  # of the row group that is kept
    with pytest.raises(DataError, match=r"a\.parquet: rows 40 to 59 must be readable, got .*No such file"):
        reader.read(41)
    reader.close()


def test_an_hdf5_file_that_vanishes_is_named_with_its_list(tmp_path: Path) -> None:
    for n in range(2):
        with h5py.File(tmp_path / f"{n}.h5", "w") as file:
            file["data"] = np.full((3, 2), n)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/0.h5\n{tmp_path}/1.h5\n")
    rows = Hdf5Rows(f"{tmp_path}/list.txt", ["data"])
    out = np.empty((2, 2))
    rows.read(np.array([0, 1]), [out])
    (tmp_path / "1.h5").unlink()
    with pytest.raises(DataError, match=r"list\.txt: must list HDF5 files, got .*1\.h5: .*No such file"):
        rows.read(np.array([2, 3]), [out])
    rows.close()


@pytest.mark.skipif(sys.platform != "linux", reason="maps folders read-only by a Linux namespace")
def test_a_read_only_file_system_can_be_read(source: str, tmp_path: Path) -> None:
    """Where this process may, in a namespace with the folder mounted read-only; else with modes alone."""
    code = f"""
    import json, os
    from dtrain.data.backends import open_reader
    reader = open_reader({source!r}, "LMDB")
    print(json.dumps([reader.read(n).labels[0] for n in range(3)] + [os.statvfs({source!r}).f_flag & 1]))
    """
    python = [sys.executable, "-c", textwrap.dedent(code)]
    mount = f'mount --bind -o ro {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && exec "$@"'
    if os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0:
        python = ["unshare", "-m", "sh", "-c", mount, "sh", *python]
        is_read_only = 1
    else:
        Path(source).chmod(0o555)
        is_read_only = 0
    done = subprocess.run(python, capture_output=True, text=True, timeout=60, env=surroundings())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [0.0, 1.0, 2.0, is_read_only]
