"""A data set written in parts by many threads: restartable, verified, whole or absent.

Everything goes into OUT.part. A part that is done stays there when the conversion is stopped, and the next
run of the same conversion goes on after it; when the last is done OUT.part becomes OUT.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import final

import numpy as np

from dtrain.data.convert.arrow_writer import write_arrow
from dtrain.data.convert.items import Items
from dtrain.data.convert.lmdb_writer import Progress, refuse_existing, write_lmdb
from dtrain.data.convert.order import shuffled_order
from dtrain.data.convert.recode import Recode
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.data.reader import Reader, open_reader
from dtrain.data.record import Record
from dtrain.errors import ConfigError, DataError, unknown_name

FORMATS = ("lmdb", "arrow", "parquet")
_AHEAD = 16  # records a thread that are read before they are written
_TOLD_EVERY = 100
_KEY_BYTES = 511  # LMDB's longest key
_PLAN, _LOCK = "plan.json", "lock"


@final
@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the records are written."""

    format: str
    """One of FORMATS."""
    shards: int = 1
    shuffle: bool = False
    """Put the records in one fixed mixed order."""
    seed: int = 1
    """Of the order."""


def convert_shards(
    items: Items,
    out: str,
    layout: Layout,
    recode: Recode | None = None,
    *,
    threads: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the records of `items` to `out`; returns their number.

    One shard of LMDB is an LMDB as Caffe knows it; several are a folder of them, as Arrow files are. Every
    part is read again and compared with what was to be written.
    """
    recode = recode or Recode()
    if layout.format not in FORMATS:
        raise ConfigError(f"convert: {unknown_name('format', layout.format, FORMATS)}")
    if not 1 <= layout.shards <= len(items):
        raise ConfigError(
            f"convert: shards must be from 1 to the number of records ({len(items)}), got {layout.shards}"
        )
    refuse_existing(out, overwrite)
    part = os.path.abspath(out) + ".part"
    plan = json.dumps({"source": items.source, "num": len(items), **asdict(layout), **asdict(recode)})
    order = shuffled_order(len(items), layout.seed) if layout.shuffle else range(len(items))
    bounds = np.linspace(0, len(items), layout.shards + 1).astype(np.int64).tolist()
    with _taken(part, plan), ThreadPoolExecutor(threads, thread_name_prefix="convert") as pool:
        for shard, (start, stop) in enumerate(pairwise(bounds)):
            path = os.path.join(part, shard_name(layout, shard))
            if os.path.lexists(path):
                continue

            def told(num: int, start: int = start) -> None:
                if progress is not None:
                    progress(start + num)

            mine = order[start:stop]
            records = _in_order(pool, items, mine, recode, threads * _AHEAD)
            _write(path, layout, [items.name_of(index) for index in mine], records, told)
        _publish(part, out, layout, overwrite)
    if progress is not None:
        progress(len(items))
    return len(items)


def shard_name(layout: Layout, shard: int) -> str:
    """What a shard's file or folder is called."""
    suffix = "" if layout.format == "lmdb" else "." + layout.format
    return f"part-{shard:05d}-of-{layout.shards:05d}{suffix}"


@contextmanager
def _taken(part: str, plan: str) -> Iterator[None]:
    """The folder that this conversion alone writes into, with what an earlier run of it has left."""
    try:
        os.makedirs(part, exist_ok=True)
        lock = os.open(os.path.join(part, _LOCK), os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise DataError(f"{part}: must be writable, got {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(f"{part}: must have one writer, got another conversion at work there") from error
        path = os.path.join(part, _PLAN)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                if file.read() != plan:
                    raise DataError(
                        f"{part}: must be of the same conversion, got parts of another; remove the folder"
                    )
        else:
            with open(path + ".new", "w", encoding="utf-8") as file:
                file.write(plan)
            os.replace(path + ".new", path)
        yield
    finally:
        os.close(lock)


def _in_order(
    pool: ThreadPoolExecutor,
    items: Items,
    order: Iterator[int] | range | list[int],
    recode: Recode,
    ahead: int,
) -> Iterator[Record]:
    waiting: deque[Future[Record]] = deque()
    try:
        for index in order:
            waiting.append(pool.submit(lambda index: recode(items.read(index)), index))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _write(
    path: str, layout: Layout, names: list[str], records: Iterator[Record], told: Callable[[int], None]
) -> None:
    digests: list[bytes] = []

    def noted() -> Iterator[tuple[str, Record]]:
        for number, (name, record) in enumerate(zip(names, records, strict=True), 1):
            digests.append(digest_of(record))
            yield name, record
            if number % _TOLD_EVERY == 0:
                told(number)

    if layout.format == "lmdb":
        write_lmdb(path, ((_key(n, name), _datum(r)) for n, (name, r) in enumerate(noted())))
    else:
        write_arrow(path, noted(), parquet=layout.format == "parquet")
    reader = open_reader(path, "LMDB" if layout.format == "lmdb" else "ARROW")
    try:
        _verify(reader, digests)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):
            os.remove(path)
        raise
    finally:
        reader.close()


def _verify(reader: Reader, digests: list[bytes]) -> None:
    if len(reader) != len(digests):
        raise DataError(f"{reader.name}: must hold {len(digests)} records, got {len(reader)}")
    for number, digest in enumerate(digests):
        if digest_of(reader.read(number)) != digest:
            raise DataError(
                f"{reader.where(number)}: must be what was written, got other bytes; check the disk"
            )


def digest_of(record: Record) -> bytes:
    """Of labels and image."""
    hashed = hashlib.blake2b(np.array(record.labels, np.float32).tobytes(), digest_size=16)
    if record.pixels is not None:
        hashed.update(f"{record.pixels.shape}{record.pixels.dtype}".encode())
        hashed.update(np.ascontiguousarray(record.pixels).data)
    else:
        hashed.update(record.encoded or b"")
    return hashed.digest()


def _key(number: int, name: str) -> bytes:
    return (b"%08d" % number + (b"_" + os.fsencode(name) if name else b""))[:_KEY_BYTES]


def _datum(record: Record) -> bytes:
    label = record.labels[0]
    if len(record.labels) != 1 or label != int(label):
        raise DataError(
            f"{record.where}: a Datum must have one whole label, got {record.labels}; write Arrow files"
        )
    if record.pixels is not None:
        return encode_pixels(record.pixels, int(label))
    return encode_image(bytes(record.encoded or b""), int(label))


def _publish(part: str, out: str, layout: Layout, overwrite: bool) -> None:
    try:
        refuse_existing(out, overwrite)  # another writer may have been quicker
        if os.path.lexists(out):
            old = part + ".old"
            os.rename(out, old)
            shutil.rmtree(old, ignore_errors=True)
            if os.path.lexists(old):
                os.remove(old)
        if layout.format == "lmdb" and layout.shards == 1:
            os.rename(os.path.join(part, shard_name(layout, 0)), out)
            shutil.rmtree(part)
        else:
            os.remove(os.path.join(part, _PLAN))
            os.remove(os.path.join(part, _LOCK))
            os.rename(part, out)
    except OSError as error:
        raise DataError(f"{out}: must be writable, got {error}") from error
