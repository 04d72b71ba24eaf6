"""Batches ahead of the step: in order, restartable, and clean in failure and at the end."""

import gc
import subprocess
import sys
import threading
import time
import traceback

import numpy as np
import pytest

from dtrain.data.feeder import Feeder
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.data.sampler import TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import DataError
from tests.data.sources import images, lmdb_of


class Numbers(Reader):
    """Record i is one pixel of value i; reading may be slow or fail."""

    name = "numbers"

    def __init__(self, num=1000, delay_s=0.0, bad=()):
        self._num = num
        self._delay_s = delay_s
        self._bad = bad

    def __len__(self):
        return self._num

    def read(self, index):
        if index in self._bad:
            raise DataError(f"numbers: record {index} must be good, got bad")
        if self._delay_s:
            time.sleep(self._delay_s * (1 + index % 3))
        return Record(f"numbers: {index}", (float(index),), np.full((1, 1, 1), index, np.float32))

    def where(self, index):
        return f"numbers: {index}"

    def close(self):
        pass


def feeder_of(reader, batch_size=4, **options):
    schedule = options.pop("schedule", TrainSchedule(num_records=len(reader), batch_size=batch_size))
    transform = Transformer(TransformSettings(train=True, crop_h=1, crop_w=1), "layer")
    return Feeder(reader, transform, schedule, batch_size=batch_size, **options)


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feeder")]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [1, 4])
def test_batches_come_in_order_whatever_the_threads_do(threads, prefetch):
    feeder = feeder_of(Numbers(delay_s=0.0005), threads=threads, prefetch=prefetch)
    for n in range(30):
        batch = feeder.next()
        expected = np.arange(4 * n, 4 * n + 4)
        np.testing.assert_array_equal(batch.data.ravel(), expected)
        np.testing.assert_array_equal(batch.labels, expected)
        np.testing.assert_array_equal(batch.indices, expected)
    feeder.close()


def test_a_batch_stays_until_the_next_is_asked_for():
    feeder = feeder_of(Numbers(), threads=3, prefetch=2)
    for n in range(20):
        batch = feeder.next()
        time.sleep(0.002)
        np.testing.assert_array_equal(batch.data.ravel(), np.arange(4 * n, 4 * n + 4))
    feeder.close()


def test_buffers_are_aligned_and_used_again():
    feeder = feeder_of(Numbers(), prefetch=2)
    places = {feeder.next().data.ctypes.data for _ in range(12)}
    feeder.close()
    assert len(places) == 3
    assert all(place % 64 == 0 for place in places)


def test_batches_are_written_where_the_caller_allocates():
    given = []

    def allocate(count, dtype):
        given.append(np.full(count, np.nan, dtype))
        return given[-1]

    feeder = feeder_of(Numbers(), prefetch=2, allocate=allocate)
    data, labels = given
    assert (data.dtype, labels.dtype) == (np.float32, np.float32)
    for n in range(8):
        batch = feeder.next()
        assert np.shares_memory(batch.data, data)
        assert np.shares_memory(batch.labels, labels)
        np.testing.assert_array_equal(batch.data.ravel(), np.arange(4 * n, 4 * n + 4))
        np.testing.assert_array_equal(batch.labels, np.arange(4 * n, 4 * n + 4))
    feeder.close()
    assert len(given) == 2


def test_single_images_of_any_size_ask_for_memory_only_when_they_grow():
    class Sizes(Numbers):
        def read(self, index):
            return Record("sizes", (0.0,), np.full((1, 2 + index % 4, 3), index, np.float32))

    given = []

    def allocate(count, dtype):
        given.append(np.zeros(count, dtype))
        return given[-1]

    feeder = Feeder(
        Sizes(),
        Transformer(TransformSettings(train=True), "layer"),
        TrainSchedule(num_records=1000, batch_size=1),
        batch_size=1,
        prefetch=2,
        allocate=allocate,
    )
    for n in range(40):
        data = feeder.next().data
        np.testing.assert_array_equal(data, np.full((1, 1, 2 + n % 4, 3), n))
        assert any(np.shares_memory(data, memory) for memory in given)
    feeder.close()
    assert len(given) <= 2 + 3 * 3  # each of 3 slots may grow 3 times


@pytest.mark.parametrize("shape", [(1, 4, 4), (1, 5, 5)], ids=["side by side", "with gaps"])
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("prefetch", [None, 1, 3, 7, 20])
def test_small_batches_taken_several_at_once_are_those_taken_alone(tmp_path, shape, threads, prefetch):
    pixels = images(50, shape)
    reader = LmdbReader(lmdb_of(tmp_path / "db", pixels))
    schedule = TrainSchedule(num_records=50, batch_size=6, shuffle_seed=3)
    feeder = Feeder(
        reader,
        Transformer(TransformSettings(train=False), "layer"),
        schedule,
        batch_size=6,
        threads=threads,
        prefetch=prefetch,
    )
    for n in (*range(60), *range(7, 40)):
        if n == 7:
            feeder.seek(7)
        batch, expected = feeder.next(), schedule(n).records
        np.testing.assert_array_equal(batch.indices, expected)
        np.testing.assert_array_equal(batch.labels, expected)
        np.testing.assert_array_equal(batch.data, pixels[expected])
    feeder.close()
    reader.close()


@pytest.mark.parametrize("batch_size", [4, 16], ids=["with gaps", "side by side"])
def test_an_error_spoils_only_its_own_of_the_batches_taken_at_once(batch_size):
    bad = 5 * batch_size + 2
    feeder = feeder_of(Numbers(bad={bad}), batch_size=batch_size, prefetch=40)
    assert [feeder.next().labels[0] for _ in range(5)] == [n * batch_size for n in range(5)]
    with pytest.raises(DataError, match=f"record {bad} must be good"):
        feeder.next()
    feeder.seek(6)
    assert [feeder.next().labels[-1] for _ in range(3)] == [n * batch_size - 1 for n in (7, 8, 9)]
    feeder.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_consumer_that_is_slower_than_the_threads_never_waits(tmp_path, threads):
    reader = LmdbReader(lmdb_of(tmp_path / "db", images(500, (1, 28, 28))))
    feeder = Feeder(
        reader,
        Transformer(TransformSettings(train=True, scale=1 / 256), "layer"),
        TrainSchedule(num_records=500, batch_size=64, shuffle_seed=1),
        batch_size=64,
        threads=threads,
    )
    feeder.next()
    first = feeder.num_waits
    for _ in range(60):
        deadline = time.monotonic() + 20
        while feeder.num_ready < 8:  # half of what may be ready, or more: the threads fill up behind us
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        feeder.next()
    assert feeder.num_waits == first <= 1
    feeder.close()
    reader.close()


def test_large_batches_are_shared_by_the_threads(tmp_path):
    pixels = images(6, (3, 300, 400))
    reader = LmdbReader(lmdb_of(tmp_path / "db", pixels))
    feeder = Feeder(
        reader,
        Transformer(TransformSettings(train=False), "layer"),
        TrainSchedule(num_records=6, batch_size=6),
        batch_size=6,
        threads=3,
    )
    for _ in range(4):
        np.testing.assert_array_equal(feeder.next().data, pixels)
    feeder.close()
    reader.close()


def test_seek_restarts_anywhere():
    feeder = feeder_of(Numbers(delay_s=0.0003), threads=3)
    for step in (7, 0, 100, 3):
        feeder.seek(step)
        for n in range(step, step + 3):
            assert feeder.next().labels[0] == 4 * n
    feeder.close()


def test_an_error_is_raised_by_the_step_that_it_spoils_with_its_origin():
    feeder = feeder_of(Numbers(bad={9}), threads=2)
    assert feeder.next().labels[0] == 0
    assert feeder.next().labels[0] == 4
    for _ in range(2):
        with pytest.raises(DataError, match="numbers: record 9 must be good, got bad") as caught:
            feeder.next()
    assert "in read" in "".join(traceback.format_exception(caught.value))
    feeder.seek(4)
    assert feeder.next().labels[0] == 16
    feeder.close()


def test_an_error_of_the_schedule_is_raised_by_the_step():
    def schedule(n):
        if n == 2:
            raise ValueError("no batch 2")
        return TrainSchedule(num_records=1000, batch_size=4)(n)

    feeder = feeder_of(Numbers(), schedule=schedule, threads=2)
    feeder.next()
    feeder.next()
    with pytest.raises(ValueError, match="no batch 2"):
        feeder.next()
    feeder.close()


def test_a_bad_message_names_source_and_key(tmp_path):
    from dtrain.data.convert.lmdb_writer import write_lmdb
    from dtrain.data.datum import encode_image, encode_pixels

    path = str(tmp_path / "db")
    good = encode_pixels(images(1, (1, 1, 1))[0], 0)
    write_lmdb(path, [(b"00000000_a.jpg", good), (b"00000001_b.jpg", encode_image(b"no jpeg", 1))])
    reader = LmdbReader(path)
    feeder = feeder_of(reader, batch_size=2)
    with pytest.raises(
        DataError, match=r"db: record 1 \(key 00000001_b.jpg\): must be an image that OpenCV decodes"
    ):
        feeder.next()
    feeder.close()
    reader.close()


def test_close_ends_the_threads_even_when_no_one_takes_batches():
    before = len(alive())
    feeder = feeder_of(Numbers(), threads=4)
    assert len(alive()) == before + 4
    feeder.close()
    feeder.close()
    assert len(alive()) == before
    with pytest.raises(RuntimeError, match="closed feeder"):
        feeder.next()


def test_a_dropped_feeder_ends_its_threads():
    before = len(alive())
    feeder = feeder_of(Numbers(), threads=2)
    feeder.next()
    del feeder
    gc.collect()
    assert len(alive()) == before


def test_the_program_ends_while_a_feeder_is_open():
    code = (
        "from tests.data.test_feeder import Numbers, feeder_of\n"
        "feeder = feeder_of(Numbers(delay_s=0.001), threads=3)\n"
        "feeder.next()\n"
        "print('end')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


def test_the_wait_for_data_is_measured():
    feeder = feeder_of(Numbers(delay_s=0.01), prefetch=1)
    feeder.next()
    feeder.next()
    assert feeder.wait_s > 0.02
    assert feeder.total_wait_s >= feeder.wait_s
    feeder.close()


def test_records_with_several_labels_make_rows():
    class Pairs(Numbers):
        def read(self, index):
            return Record("pairs", (index, -index), np.zeros((1, 1, 1), np.float32))

    feeder = feeder_of(Pairs())
    assert feeder.next().labels.tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    feeder.close()
