"""Reading LMDB: keys, threads, forks, sharing, and what is refused."""

import os
import threading

import lmdb
import numpy as np
import pytest

from dtrain.data.backends import open_reader
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_pixels
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.errors import DataError
from tests.data.sources import images, lmdb_of


@pytest.mark.parametrize("key", ["{:08d}", "{:08d}_an image.jpg", "{:05d}", "key{:09d}"])
def test_records_come_in_the_order_of_their_keys(tmp_path, key):
    pixels = images(700, (1, 3, 4))
    reader = LmdbReader(lmdb_of(tmp_path / "db", pixels, key))
    assert len(reader) == 700
    for index in (0, 1, 350, 698, 699):
        record = reader.read(index)
        assert record.labels == (index,)
        np.testing.assert_array_equal(record.pixels, pixels[index])
        assert key.format(index) in record.where
    reader.close()


def test_numbers_with_gaps_are_read_by_their_order(tmp_path):
    # Caffe's convert_imageset leaves out images that it cannot read, and their numbers.
    numbers = [0, 1, 3, 4, 9]
    path = str(tmp_path / "db")
    write_lmdb(path, ((f"{n:08d}_x".encode(), encode_pixels(images(1)[0], n)) for n in numbers))
    reader = LmdbReader(path)
    assert [int(reader.read(i).labels[0]) for i in range(5)] == numbers
    reader.close()


def test_a_repeated_number_that_hides_a_missing_one_is_an_error_not_a_wrong_record(tmp_path):
    keys = [b"%08d" % n for n in range(1000)]
    probes = set(np.linspace(0, 999, 256).astype(np.int64).tolist())
    hidden = next(n for n in range(1, 999) if n not in probes and n - 1 not in probes)
    keys[hidden] = keys[hidden - 1] + b"b"
    path = str(tmp_path / "db")
    write_lmdb(path, ((key, encode_pixels(images(1)[0], 0)) for key in keys))
    reader = LmdbReader(path)
    with pytest.raises(DataError, match=f"got no key {hidden:08d}"):
        reader.read(hidden)
    reader.close()


def test_a_single_file_is_read_like_a_folder(tmp_path):
    path = lmdb_of(tmp_path / "db", images(3))
    reader = LmdbReader(path + "/data.mdb")
    assert len(reader) == 3
    reader.close()


def test_one_source_can_be_open_several_times_under_several_names(tmp_path):
    path = lmdb_of(tmp_path / "db", images(3))
    os.symlink(path, tmp_path / "link")
    first, second = LmdbReader(path), LmdbReader(str(tmp_path / "link"))
    first.close()
    first.close()
    assert second.read(2).labels == (2,)
    second.close()
    with pytest.raises(DataError, match="must be open"):
        second.read(0)


def test_opening_and_closing_leaves_no_file_descriptor_and_no_lock_file(tmp_path):
    path = lmdb_of(tmp_path / "db", images(3))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        reader = LmdbReader(path)
        reader.read(0)
        reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(path) == ["data.mdb"]


def test_many_threads_read_their_own_records(tmp_path):
    pixels = images(200, (1, 5, 5))
    reader = LmdbReader(lmdb_of(tmp_path / "db", pixels))
    wrong = []

    def work(seed):
        indices = np.random.default_rng(seed).integers(0, 200, 300).tolist()
        wrong.extend(i for i in indices if not np.array_equal(reader.read(i).pixels, pixels[i]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    reader.close()


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_reads_an_inherited_reader_and_opens_its_own(tmp_path):
    path = lmdb_of(tmp_path / "db", images(3))
    reader = LmdbReader(path)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            again = LmdbReader(path)
            status = 0 if reader.read(1).labels == (1,) and again.read(2).labels == (2,) else 2
            reader.close()
            again.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert reader.read(0).labels == (0,)
    reader.close()


def test_a_write_to_an_open_source_is_noticed(tmp_path):
    path = lmdb_of(tmp_path / "db", images(3))
    reader = LmdbReader(path)
    child = os.spawnlp(
        os.P_WAIT,
        "python",
        "python",
        "-c",
        f"import lmdb; e = lmdb.open({path!r}, map_size=1 << 24, lock=False)\n"
        "with e.begin(write=True) as t: t.put(b'x', b'y')",
    )
    assert child == 0
    with pytest.raises(DataError, match="must stay as it is"):
        reader.read(0)
    reader.close()


def test_a_missing_source_says_how_to_make_one(tmp_path):
    with pytest.raises(DataError, match=r"absent: must be an LMDB, got no such path .*dtrain convert"):
        open_reader(str(tmp_path / "absent"), "LMDB")
    with pytest.raises(DataError, match=r"a folder without data\.mdb"):
        open_reader(str(tmp_path), "LMDB")


def test_foreign_bytes_and_empty_databases_are_refused(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"x" * 20000)
    with pytest.raises(DataError, match="file that LMDB refuses"):
        LmdbReader(str(tmp_path))
    write_lmdb(str(tmp_path / "empty"), [])
    with pytest.raises(DataError, match="at least one record"):
        LmdbReader(str(tmp_path / "empty"))


def test_other_backends_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"x: must be a LevelDB folder, got no such folder"):
        open_reader("x", "LEVELDB")
    with pytest.raises(DataError, match='unknown backend "LMBD"; did you mean "LMDB"'):
        open_reader("x", "LMBD")


def test_a_database_grows_beyond_its_first_map_and_ends_compact(tmp_path):
    value = os.urandom(1 << 20)
    path = str(tmp_path / "db")
    assert write_lmdb(path, ((b"%08d" % n, value) for n in range(80))) == 80
    assert os.path.getsize(path + "/data.mdb") < 81 << 20
    with lmdb.open(path, readonly=True, lock=False) as env, env.begin() as txn:
        assert txn.get(b"00000079") == value
