"""Arrow sources in an object store, read by pyarrow.fs over the network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.arrow_reader import ArrowReader
from dtrain.data.bad_records import BadRecords
from dtrain.data.convert.items import FileItems
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.feeder import Feeder
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.data.sampler import TrainSchedule
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import DataError
from tests.data.object_store import Store, store_of
from tests.data.sources import images, jpeg_of

NUM = 40
ONE = "part-00000-of-00001.parquet"


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Images in two Arrow files, in a Parquet file and in an LMDB."""
    (tmp_path / "images").mkdir()
    for n, pixels in enumerate(images(NUM, (3, 24, 32))):
        (tmp_path / "images" / f"{n}.jpg").write_bytes(jpeg_of(pixels))
    (tmp_path / "list.txt").write_text("".join(f"{n}.jpg {n}\n" for n in range(NUM)))
    items = FileItems.of_list(str(tmp_path / "list.txt"), f"{tmp_path}/images/")
    for name, shards in (("arrow", 2), ("parquet", 1), ("lmdb", 1)):
        convert_shards(items, str(tmp_path / name), Layout(format=name, shards=shards))
    return tmp_path


@pytest.fixture
def store(local: Path) -> Iterator[Store]:
    objects = {
        f"bucket/{path.relative_to(local)}": path.read_bytes()
        for kind in ("arrow", "parquet")
        for path in (local / kind).iterdir()
    }
    with store_of(objects) as running:
        yield running


def epoch(reader: ArrowReader | LmdbReader) -> np.ndarray:
    """The labels and values of one shuffled epoch."""
    feeder = Feeder(
        reader,
        Transformer(TransformSettings(train=True, seed=1, crop_h=16, crop_w=16), "layer"),
        TrainSchedule(num_records=NUM, batch_size=8, shuffle_seed=3),
        batch_size=8,
        threads=2,
        bad=BadRecords(),
    )
    found = []
    for _ in range(NUM // 8):
        batch = feeder.next()
        found.append(np.concatenate([batch.labels[:, None], batch.data.reshape(8, -1)], axis=1))
    feeder.close()
    reader.close()
    return np.concatenate(found)


@pytest.mark.parametrize("place", ["arrow", "parquet", "arrow/*.arrow", f"parquet/{ONE}"])
def test_a_bucket_gives_the_batches_of_an_lmdb_of_the_same_images(
    local: Path, store: Store, place: str
) -> None:
    reader = ArrowReader(store.uri(f"bucket/{place}"))
    assert len(reader) == NUM
    assert reader.where(NUM - 1).startswith("s3://bucket/")
    np.testing.assert_array_equal(epoch(reader), epoch(LmdbReader(str(local / "lmdb"))))
    assert store.asked


def test_commands_read_a_bucket(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri = store.uri("bucket/parquet")
    assert run(["data", "check", uri]) == 0
    assert f"{NUM} records, 0 of them bad" in capsys.readouterr().out
    assert run(["convert", "records", uri, str(tmp_path / "back"), "--to", "lmdb"]) == 0
    reader = LmdbReader(str(tmp_path / "back"))
    assert [reader.read(n).labels for n in range(NUM)] == [(float(n),) for n in range(NUM)]
    reader.close()


def test_an_object_that_vanished_is_named_by_its_uri(store: Store) -> None:
    reader = ArrowReader(store.uri("bucket/parquet"))
    store.objects.clear()
    with pytest.raises(
        DataError,
        match=r"s3://bucket/parquet/part-00000-of-00001.parquet: rows 0 to 39 must be readable, got",
    ):
        reader.read(7)
    reader.close()


def test_what_is_not_in_the_store_is_named_without_the_key(store: Store) -> None:
    with pytest.raises(
        DataError, match=r"s3://\*\*\*@bucket/none\?.*: must be .* got no such path"
    ) as caught:
        ArrowReader(store.uri("bucket/none"))
    assert "secret" not in str(caught.value)


def test_a_store_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with store_of({}) as store:
        uri = store.uri("bucket/train")
    begun = time.monotonic()
    with pytest.raises(DataError) as caught:
        ArrowReader(uri)
    assert str(caught.value).startswith(uri.replace("key:secret", "***"))
    assert "must be a URI that pyarrow.fs reads, got" in str(caught.value)
    assert "check that the store can be reached from this machine" in str(caught.value)
    assert time.monotonic() - begun < 60
