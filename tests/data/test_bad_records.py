"""What happens to records that cannot be used, and what is left of readers after many of them."""

import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest

from dtrain.data.arrow_reader import ArrowReader
from dtrain.data.bad_records import BadRecords
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.data.feeder import Feeder
from dtrain.data.image_list import ImageListReader
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.sampler import TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import CommError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.layers.record_layer import RecordLayer
from dtrain.metrics.recorder import Recorder
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.skipped_records import SkippedRecords
from tests.cli.running import dtrain
from tests.data.sources import images, jpeg_of, lmdb_of

GOOD = images(1, (3, 8, 8))[0]
HALF = jpeg_of(images(1, (3, 64, 64))[0])[:5000]
NOT_GOOD = {
    "no image": (encode_image(b"no jpeg", 1), "must be an image that OpenCV decodes"),
    "cut JPEG": (encode_image(jpeg_of(images(1, (3, 64, 64))[0])[:20] + b"\xff\xd9", 1), "image that OpenCV"),
    "half a JPEG": (encode_image(HALF, 1), "a JPEG must go on to its end marker, got a file cut short after"),
    "cut Datum": (encode_pixels(GOOD, 1)[:40], "must be a Datum message"),
    "too few bytes": (
        pb.Datum(channels=3, height=8, width=8, data=b"abc", label=1).SerializeToString(),
        "bytes of data must number 3 x 8 x 8 = 192, got 3",
    ),
    "other channels": (encode_pixels(GOOD[:1], 1), "all images of a source must give the same shape"),
    "other size": (encode_pixels(GOOD[:, :5], 1), "all images of a source must give the same shape"),
    "empty": (b"", "channels, height and width must be positive"),
}


def source_with(folder, bad, num=12):
    """Raw records labelled 0, 1, ...; bad: what stands at some numbers instead."""
    path = str(folder / "db")
    pixels = images(num, (3, 8, 8))
    write_lmdb(path, [(b"%08d_%d.jpg" % (n, n), bad.get(n, encode_pixels(pixels[n], n))) for n in range(num)])
    return path


def feeder_of(reader, limit, threads=1, batch_size=4):
    return Feeder(
        reader,
        Transformer(TransformSettings(train=True), "layer"),
        TrainSchedule(num_records=len(reader), batch_size=batch_size),
        batch_size=batch_size,
        threads=threads,
        bad=BadRecords(limit),
    )


@pytest.mark.parametrize("kind", NOT_GOOD)
def test_a_bad_record_is_named_with_source_key_and_reason(tmp_path, kind):
    value, reason = NOT_GOOD[kind]
    reader = LmdbReader(source_with(tmp_path, {5: value}))
    feeder = feeder_of(reader, 0)
    feeder.next()
    with pytest.raises(DataError) as caught:
        feeder.next()
    assert f"{tmp_path}/db: record 5 (key 00000005_5.jpg)" in str(caught.value)
    assert reason in str(caught.value)
    feeder.close()
    reader.close()


@pytest.mark.parametrize("kind", NOT_GOOD)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_record_is_replaced_by_the_next_good_one(tmp_path, kind, threads):
    reader = LmdbReader(source_with(tmp_path, {5: NOT_GOOD[kind][0], 6: NOT_GOOD["empty"][0], 11: b"\xff"}))
    feeder = feeder_of(reader, 3, threads)
    for _ in range(2):  # the second epoch meets the same ones, which count once
        taken = [feeder.next() for _ in range(1)]
        labels = [taken[0].labels.tolist()] + [feeder.next().labels.tolist() for _ in range(2)]
        assert labels == [[0, 1, 2, 3], [4, 7, 7, 7], [8, 9, 10, 0]]
    feeder.close()
    reader.close()


def test_the_numbers_of_a_batch_are_those_of_what_was_read(tmp_path):
    reader = LmdbReader(source_with(tmp_path, {1: b"\xff"}))
    feeder = feeder_of(reader, 1)
    assert feeder.next().indices.tolist() == [0, 2, 2, 3]
    feeder.close()
    reader.close()


def test_more_bad_records_in_a_row_than_allowed_stop_the_feeder(tmp_path):
    reader = LmdbReader(source_with(tmp_path, {1: b"\xff", 8: b"\xff", 9: b"\xff"}))
    feeder = feeder_of(reader, 1)
    feeder.next()
    feeder.next()
    with pytest.raises(DataError, match=r"record 9 .* bad records of a source must number at most 1 in the"):
        feeder.next()
    feeder.close()
    reader.close()


def test_a_source_without_any_good_record_stops_whatever_is_allowed(tmp_path):
    reader = LmdbReader(source_with(tmp_path, dict.fromkeys(range(3), b"\xff"), num=3))
    with pytest.raises(DataError, match="no record of the source can be used"):
        feeder_of(reader, 100)
    reader.close()


NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{source}" backend: LMDB batch_size: 4 }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param {{ num_output: {classes} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
"""


def net_of(folder, bad_records=0, classes=20, rank=0, size=1):
    spec = NET.format(source=f"{folder}/db", classes=classes)
    param = pb.NetParameter()
    text.parse(spec, param)
    return Net(param, Scope(CpuBackend(), pb.TRAIN, rank=rank, size=size, bad_records=bad_records))


def test_a_net_skips_as_many_as_its_scope_allows(tmp_path, caplog):
    source_with(tmp_path, {0: b"\xff", 2: b"\xff"})
    with pytest.raises(DataError, match="record 0"):
        net_of(tmp_path)
    net = net_of(tmp_path, 2)
    data = net.layer("data")
    assert isinstance(data, RecordLayer)
    assert data.bad_records.count == 0, "set-up looks at a record and serves none"
    for _ in range(6):  # two epochs: the second meets the same ones, which count once
        net.forward()
        if data.records[0] == 1:
            assert data.records.tolist() == [1, 1, 3, 3]
        assert list(data.bad_records.replaced) == [0, 2]
    data.close()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert "bad record, replaced by the next: " in told[0]
    assert "record 0 (key 00000000_0.jpg): must be a Datum message" in told[0]


def test_a_net_stops_at_the_step_that_consumes_one_bad_record_more(tmp_path):
    source_with(tmp_path, {1: b"\xff", 9: b"\xff", 10: b"\xff"})
    for _ in range(3):  # read ahead by threads, in any order
        net = net_of(tmp_path, 2)
        net.forward()
        net.forward()
        assert list(net.layer("data").bad_records.replaced) == [1]
        with pytest.raises(DataError, match=r"record 10 .* must number at most 2 in the whole job"):
            net.forward()
        net.layer("data").close()


@pytest.mark.world_size(1, 2, 4)
def test_the_ranks_of_a_job_count_their_bad_records_together(comm, tmp_path):
    folder = Path(comm.allgather_object(str(tmp_path))[0])
    if comm.rank == 0:
        source_with(folder, dict.fromkeys((1, 9, 10, 14), b"\xff"), num=16)
    comm.barrier()
    for limit in (4, 3):
        net = net_of(folder, limit, rank=comm.rank, size=comm.size)
        recorder = Recorder()
        skipped = SkippedRecords([net], comm, recorder)
        passes = 16 // comm.size // 4
        for n in range(2 * passes):
            if limit == 3 and comm.size == 1 and n == passes - 1:
                with pytest.raises(DataError, match=r"record 14 .* at most 3 in the whole job"):
                    net.forward()
                break
            net.forward()
            if limit == 3 and n == passes - 1:
                with pytest.raises(CommError, match=r"record (9|14) .* at most 3 in the whole job, got"):
                    skipped.check()
                break
            skipped.check()
        else:
            assert skipped.counts == {f"{folder}/db": {1, 9, 10, 14}}
            (family,) = recorder.read()
            assert (family.name, family.kind) == ("bad_records_total", "counter")
            assert family.points[0].labels == (("source", f"{folder}/db"),)
            assert sum(comm.allgather_object(family.points[0].value)) == 4
        net.layer("data").close()


def test_a_label_that_is_no_class_is_named_with_its_record(tmp_path):
    source_with(tmp_path, {})
    net = net_of(tmp_path, classes=7)
    net.forward()
    with pytest.raises(
        DataError,
        match=r"label of sample 3 of the batch must be in \[0, 7\), got 7 "
        r"\(record: .*/db: record 7 \(key 00000007_7.jpg\)\)",
    ):
        net.forward()
    net.layer("data").close()


def test_an_image_file_that_vanished_is_named(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg_of(GOOD))
    (tmp_path / "list.txt").write_text("".join(f"{n}.jpg {n}\n" for n in range(4)))
    reader = ImageListReader(str(tmp_path / "list.txt"), root_folder=f"{tmp_path}/")
    (tmp_path / "2.jpg").unlink()
    feeder = feeder_of(reader, 0)
    with pytest.raises(DataError, match=r"list\.txt:3: image must be readable, got No such file .*2\.jpg"):
        feeder.next()
    feeder.close()
    feeder = feeder_of(reader, 1)
    assert feeder.next().labels.tolist() == [0, 1, 3, 3]
    feeder.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_opening_and_closing_leaves_nothing_behind(tmp_path):
    import pyarrow as pa

    path = lmdb_of(tmp_path / "db", images(8))
    table = pa.table({"image": [jpeg_of(GOOD)] * 8, "label": list(range(8))})
    with pa.OSFile(f"{tmp_path}/a.arrow", "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)

    def cycle():
        for reader in (LmdbReader(path), ArrowReader(f"{tmp_path}/a.arrow")):
            feeder = feeder_of(reader, 0, threads=2)
            feeder.next()
            feeder.close()
            reader.close()

    cycle()
    before = descriptors(), threading.active_count(), len(os.listdir(path))
    for _ in range(150):  # LMDB's table of readers has 126 places
        cycle()
    assert (descriptors(), threading.active_count(), len(os.listdir(path))) == before


def test_a_forked_child_reads_a_database_that_its_parent_has_open(tmp_path):
    path = lmdb_of(tmp_path / "db", images(8))
    code = f"""
import os
from dtrain.data.lmdb_reader import LmdbReader
parent = LmdbReader({path!r})
parent.read(3)
child = os.fork()
if child == 0:
    again = LmdbReader({path!r})
    right = again.read(5).labels == (5.0,) and parent.read(6).labels == (6.0,)
    os._exit(0 if right else 7)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert status == 0, status
assert parent.read(7).labels == (7.0,)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_read_only_folder_can_be_read(tmp_path):
    path = lmdb_of(tmp_path / "db", images(4))
    os.chmod(f"{path}/data.mdb", 0o444)
    os.chmod(path, 0o555)
    try:
        reader = LmdbReader(path)
        assert reader.read(2).labels == (2.0,)
        reader.close()
        assert os.listdir(path) == ["data.mdb"]
    finally:
        os.chmod(path, 0o755)


def test_a_full_disk_while_converting_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    class Full:
        def __init__(self, environment):
            self._environment = environment
            self._left = 2

        def __getattr__(self, name):
            return getattr(self._environment, name)

        def begin(self, **options):
            self._left -= 1
            if self._left == 0:
                raise lmdb.DiskError("mdb_txn_commit: No space left on device")
            return self._environment.begin(**options)

    opened = lmdb.open
    monkeypatch.setattr(lmdb, "open", lambda *words, **options: Full(opened(*words, **options)))
    records = ((b"%08d" % n, encode_pixels(GOOD, n % 9)) for n in range(2500))
    with pytest.raises(DataError, match=r"db: must be writable, got .*No space left on device"):
        write_lmdb(str(tmp_path / "db"), records)
    assert os.listdir(tmp_path) == []


def test_of_two_writers_the_second_to_end_is_refused_and_the_first_stays_whole(tmp_path):
    path = str(tmp_path / "db")

    def slow():
        yield b"00000000", encode_pixels(GOOD, 1)
        lmdb_of(path, images(3))  # another writer ends meanwhile
        yield b"00000001", encode_pixels(GOOD, 1)

    with pytest.raises(DataError, match="db: must not exist yet, got an existing one"):
        write_lmdb(path, slow())
    reader = LmdbReader(path)
    assert len(reader) == 3
    reader.close()
    assert os.listdir(tmp_path) == ["db"]


def test_a_batch_of_decoded_images_does_not_depend_on_what_was_skipped_before(tmp_path):
    bad = LmdbReader(source_with(tmp_path, {2: b"\xff"}))
    feeder = feeder_of(bad, 1)
    first = [feeder.next().data.copy() for _ in range(3)]
    feeder.seek(2)
    np.testing.assert_array_equal(feeder.next().data, first[2])
    feeder.close()
    bad.close()


@pytest.mark.parametrize(
    ("option", "status", "told"),
    [
        ("stop", 1, "record 2 (key 00000002_2.jpg): must be a Datum message"),
        ("skip:1", 0, "bad record, replaced by the next: "),
        ("skip:some", 1, "--bad-records must be stop or skip:N, such as skip:100, got skip:some"),
    ],
)
def test_the_train_command_skips_when_told(tmp_path, option, status, told):
    source_with(tmp_path, {2: b"\xff"})
    (tmp_path / "net.prototxt").write_text(NET.format(source=f"{tmp_path}/db", classes=12))
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false'
    )
    words = ["-m", "dtrain.cli.main", "train", "solver.prototxt", "--bad-records", option, "--plan", "off"]
    surroundings = {**os.environ, "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=60, cwd=tmp_path, env=surroundings
    )
    assert done.returncode == status
    assert told in done.stderr


@pytest.mark.parametrize("limit", [4, 3])
def test_two_ranks_tell_and_export_one_count(tmp_path, limit):
    source_with(tmp_path, dict.fromkeys((1, 9, 10, 14), b"\xff"), num=16)
    (tmp_path / "net.prototxt").write_text(NET.format(source=f"{tmp_path}/db", classes=20))
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1e-5 lr_policy: "fixed" max_iter: 4 snapshot_after_train: false'
    )
    words = [
        "solver.prototxt",
        "--bad-records",
        f"skip:{limit}",
        "--plan",
        "off",
        "--metrics-textfile",
        "prom",
    ]
    done = dtrain(*words, at=tmp_path, ranks=2)
    if limit == 3:
        assert done.status == 1
        (fault,) = [line for line in done.faults if not line.startswith("W")]
        assert re.search(r"record \d+ \(key .* at most 3 in the whole job, got this one besides", fault)
        return
    assert done.status == 0, done.err
    assert f"Bad records: 4 of at most 4 replaced in {tmp_path}/db" in done.err.splitlines()[-1]
    counts = [
        float(line.split()[-1])
        for path in (tmp_path / "prom").iterdir()
        for line in path.read_text().splitlines()
        if line.startswith("dtrain_bad_records_total{") and f'source="{tmp_path}/db"' in line
    ]
    assert sum(counts) == 4
    assert len(counts) == 2
