"""Files that lose bytes while they are mapped: an error that names them, where a signal would kill."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import lmdb
import numpy as np
import pyarrow as pa
import pytest

from dtrain.data.arrow_reader import ArrowReader
from dtrain.data.file_length import FileLength
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.reader import Reader
from dtrain.errors import DataError
from tests.cli.running import command, dtrain, surroundings
from tests.data.sources import images, jpeg_of, lmdb_of

NUM = 60
PIXELS = images(NUM, (3, 40, 40))  # 288 kB in all


def arrow_of(path: Path) -> str:
    """An IPC file of JPEGs in three batches, which is mapped."""
    table = pa.table({"image": [jpeg_of(image) for image in PIXELS], "label": list(range(NUM))})
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return str(path)


def in_a_process(code: str) -> subprocess.CompletedProcess[str]:
    """Where a signal ends no more than that."""
    python = [sys.executable, "-c", textwrap.dedent(code)]
    return subprocess.run(python, capture_output=True, text=True, timeout=120, env=surroundings())


@pytest.mark.parametrize("backend", ["LMDB", "ARROW"])
def test_a_file_that_is_cut_while_it_is_mapped_is_named_with_both_lengths(
    tmp_path: Path, backend: str
) -> None:
    if backend == "LMDB":
        source = lmdb_of(tmp_path / "db", PIXELS)
        file = f"{source}/data.mdb"
    else:
        source = file = arrow_of(tmp_path / "a.arrow")
    length = os.path.getsize(file)
    done = in_a_process(f"""
    import os
    import numpy as np
    from dtrain.data.backends import open_reader
    from dtrain.errors import DataError
    reader = open_reader({source!r}, {backend!r})
    reader.read(0)
    os.truncate({file!r}, 4096)
    many = reader.datums if {backend!r} == "LMDB" else reader.columns
    for use in (lambda: reader.read(50), lambda: reader.read(0), lambda: many(np.array([3, 50])).__enter__()):
        try:
            use()
        except DataError as error:
            print(error)
    """)
    told = (
        f"{source}: {file} must keep its {length} bytes while it is read, got 4096; "
        "write a changed data set beside it, and give that its name"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [told] * 3


@pytest.mark.parametrize("change", ["removed", "replaced", "moved"])
def test_a_file_that_loses_its_name_is_read_on(tmp_path: Path, change: str) -> None:
    readers: list[Reader] = [
        LmdbReader(lmdb_of(tmp_path / "db", PIXELS)),
        ArrowReader(arrow_of(tmp_path / "a.arrow")),
    ]
    for file in (tmp_path / "db" / "data.mdb", tmp_path / "a.arrow"):
        if change == "removed":
            file.unlink()
        elif change == "replaced":
            (tmp_path / "new").write_bytes(b"short")
            (tmp_path / "new").rename(file)
        else:
            file.rename(tmp_path / "elsewhere")
    for reader in readers:
        assert reader.read(50).labels == (50,)
        reader.close()


def test_a_file_that_its_disk_lost_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    mapped = FileLength("SOURCE", f"{tmp_path}/a")

    def stale(path: str) -> os.stat_result:
        raise OSError(116, "Stale file handle", path)

    monkeypatch.setattr("dtrain.data.file_length.os.stat", stale)
    with pytest.raises(DataError, match=r"SOURCE: .*/a must stay readable while it is read, got Stale file"):
        mapped.check()


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_database_that_was_not_copied_whole_is_refused_before_it_is_read(
    tmp_path: Path, part: float
) -> None:
    source = lmdb_of(tmp_path / "db", PIXELS)
    length = os.path.getsize(f"{source}/data.mdb")
    os.truncate(f"{source}/data.mdb", int(part * length))
    done = in_a_process(f"""
    from dtrain.data.backends import open_reader
    from dtrain.errors import DataError
    try:
        open_reader({source!r}, "LMDB").read({NUM - 1})
    except DataError as error:
        print(error)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"{source}: {source}/data.mdb must have the {length} bytes that it says it has, "
        f"got {int(part * length)}; copy or convert it again\n"
    )


@pytest.mark.parametrize("missing", [1, 4095, 3 * 4096 + 5])
def test_a_database_that_lacks_its_last_bytes_is_refused_though_pages_in_it_are_free(
    tmp_path: Path, missing: int
) -> None:
    """As Caffe writes one, in many transactions: each leaves pages behind that none uses."""
    with lmdb.open(f"{tmp_path}/db", map_size=1 << 26) as environment:
        for start in range(0, 6000, 1000):
            with environment.begin(write=True) as txn:
                for n in range(start, start + 1000):
                    txn.put(b"%08d" % n, bytes(100), append=True)
        used = environment.stat()
        in_use = 2 + used["branch_pages"] + used["leaf_pages"] + used["overflow_pages"]
    length = os.path.getsize(f"{tmp_path}/db/data.mdb")
    if missing < 4096:
        assert length - missing > in_use * 4096, "pages must be free, for this to test something"
    LmdbReader(f"{tmp_path}/db").close()
    os.truncate(f"{tmp_path}/db/data.mdb", length - missing)
    with pytest.raises(
        DataError, match=f"must have the {length} bytes that it says it has, got {length - missing}"
    ):
        LmdbReader(f"{tmp_path}/db")


def test_a_database_whose_last_pages_are_free_is_whole(tmp_path: Path) -> None:
    with lmdb.open(f"{tmp_path}/db", map_size=1 << 24) as environment:
        source = LmdbReader(lmdb_of(tmp_path / "whole", PIXELS))
        for stretch in np.split(np.arange(NUM), 6):
            with environment.begin(write=True) as txn, source.datums(stretch) as messages:
                for n, index in enumerate(stretch.tolist()):
                    txn.put(b"%08d" % index, messages.bytes_of(n).tobytes())
        source.close()
        with environment.begin(write=True) as txn:
            for index in range(10, NUM):
                txn.delete(b"%08d" % index)
    reader = LmdbReader(f"{tmp_path}/db")
    assert len(reader) == 10
    assert reader.read(9).labels == (9,)
    reader.close()


def test_a_cut_file_is_no_bad_record_that_another_could_replace(tmp_path: Path) -> None:
    source = lmdb_of(tmp_path / "db", PIXELS)
    done = in_a_process(f"""
    import os
    import numpy as np
    from dtrain.data.bad_records import BadRecords
    from dtrain.data.convert.items import ReaderItems
    from dtrain.data.inspect import check
    from dtrain.data.backends import open_reader
    from dtrain.errors import SourceError
    reader = open_reader({source!r}, "LMDB")
    os.truncate({source!r} + "/data.mdb", 4096)
    bad = BadRecords(1000)
    for use in (lambda: bad.first_good(3, len(reader), reader.read), lambda: check(ReaderItems(reader))):
        try:
            use()
        except SourceError as error:
            print(bad.has_met_any, str(error).endswith("and give that its name"))
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["False True"] * 2


NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label" data_param {{ {param} batch_size: 4 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 100 }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""
SOLVER = (
    'net: "net.prototxt" base_lr: 1e-9 lr_policy: "fixed" max_iter: 1000000 display: 5 '
    "snapshot_after_train: false"
)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_process_that_a_lost_page_kills_tells_where_it_was(tmp_path: Path, ranks: int) -> None:
    """One page that is cut behind the check's back; of several ranks, the witness names the one that died."""
    (tmp_path / "mapped").write_bytes(b"x" * 8192)
    (tmp_path / "lost.py").write_text(
        textwrap.dedent("""
        import mmap
        import os

        import caffe

        class Lost(caffe.Layer):
            def setup(self, bottom, top):
                self.steps = 0

            def reshape(self, bottom, top):
                top[0].reshape(*bottom[0].data.shape)

            def forward(self, bottom, top):
                self.steps += 1
                if self.steps == 3 and os.environ.get("PMI_RANK", "1") == "1":
                    with open("mapped", "r+b") as file:
                        mapped = mmap.mmap(file.fileno(), 8192)
                        os.truncate("mapped", 4096)
                        self.read_what_is_gone(mapped)

            def read_what_is_gone(self, mapped):
                return mapped[5000]

            def backward(self, top, propagate_down, bottom):
                pass
        """)
    )
    source = lmdb_of(tmp_path / "db", PIXELS)
    python = """
    layer { name: "lost" type: "Python" bottom: "label" top: "lost"
            python_param { module: "lost" layer: "Lost" } }
    """
    (tmp_path / "net.prototxt").write_text(NET.format(param=f'source: "{source}" backend: LMDB') + python)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    done = dtrain("solver.prototxt", "--plan", "off", at=tmp_path, ranks=ranks)
    assert done.status != 0
    assert "Fatal Python error: Bus error" in done.err
    assert "in read_what_is_gone" in done.err
    if ranks > 1:
        assert re.search(r"error: rank 1 on .* \(pid \d+\): the process died in phase", done.err), done.err


@pytest.mark.parametrize(("backend", "ranks"), [("LMDB", 1), ("ARROW", 1), ("LMDB", 2)])
def test_a_file_that_is_cut_while_a_job_trains_ends_it_with_a_line(
    tmp_path: Path, backend: str, ranks: int
) -> None:
    """Cut behind the first page, so that nearly every batch would have touched what is gone."""
    source = lmdb_of(tmp_path / "db", PIXELS) if backend == "LMDB" else arrow_of(tmp_path / "a.arrow")
    file = f"{source}/data.mdb" if backend == "LMDB" else source
    length = os.path.getsize(file)
    (tmp_path / "net.prototxt").write_text(NET.format(param=f'source: "{source}" backend: {backend}'))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    process = subprocess.Popen(
        command(["solver.prototxt", "--plan", "off"], ranks),
        cwd=tmp_path,
        env=surroundings(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    told = []
    with process.stderr:
        for line in process.stderr:
            told.append(line)
            if "Iteration 5 " in line and os.path.getsize(file) == length:
                os.truncate(file, 4096)
    text = "".join(told)
    if process.wait(60) < 0 or "Bus error" in text:
        # The cut fell inside a batch: then the process has to die, with its stack.
        assert "Fatal Python error: Bus error" in text
        assert "dtrain/data" in text
        return
    assert process.returncode == 1, text
    faults = [line for line in told if not re.match(r"I\d{4} |.*MPI_Abort", line)]
    assert len(faults) == 1, text
    assert f"{source}: {file} must keep its {length} bytes while it is read, got 4096; " in faults[0]
