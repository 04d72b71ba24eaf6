"""A data set written in parts by many threads: restartable, verified, whole or absent.

Everything goes into OUT.part. A part that is done stays there when the conversion is stopped, and the next
run of the same conversion goes on after it; when the last is done OUT.part becomes OUT.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import final

import numpy as np

from dtrain.data.convert.annotated_items import MessageItems, reader_of_boxes
from dtrain.data.convert.items import LIST, Items
from dtrain.data.convert.lmdb_writer import Progress
from dtrain.data.convert.order import shuffled_order
from dtrain.data.convert.recode import Recode
from dtrain.data.convert.shard_formats import (
    ALONE,
    FORMATS,
    MESSAGES,
    SUFFIX,
    WHOLE,
    open_part,
    remove,
    stored,
    write_part,
)
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.data.record import Record
from dtrain.errors import ConfigError, DataError, unknown_name

_AHEAD = 16  # records a thread that are read before they are written
_TOLD_EVERY = 100
_PLAN, _LOCK = "plan.json", "lock"
_DONE = re.compile(r"part-\d{5,}-of-\d{5,}(\.arrow|\.parquet|\.h5)?")


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

    One shard of LMDB is an LMDB as Caffe knows it; several are a folder of them, as Arrow files are. HDF5
    files come with the list of them that HDF5Data reads, and image files with ImageData's list of names and
    labels. Images with boxes are copied to the byte from a database to another. Every part is read again and
    compared with what was to be written.
    """
    recode = recode or Recode()
    if layout.format not in FORMATS:
        raise ConfigError(f"convert: {unknown_name('format', layout.format, FORMATS)}")
    boxes = reader_of_boxes(items)
    if boxes is not None:
        _refuse_boxes(items.source, layout, recode)
        items = MessageItems(boxes)
    if not 1 <= layout.shards <= len(items):
        raise ConfigError(
            f"convert: shards must be from 1 to the number of records ({len(items)}), got {layout.shards}"
        )
    if layout.format in WHOLE and layout.shards > 1:
        raise ConfigError(f"convert: shards must be 1 for format {layout.format}, got {layout.shards}")
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
            names = [items.name_of(index) for index in mine]
            _write(path, layout, names, records, told, as_messages=boxes is not None)
        _publish(part, out, layout, overwrite)
    if progress is not None:
        progress(len(items))
    return len(items)


def _refuse_boxes(source: str, layout: Layout, recode: Recode) -> None:
    """Raise unless the records of images with boxes are to be copied as they are, into what can hold them."""
    what = f"{source}: holds images with boxes (AnnotatedDatum), of which the"
    if layout.format not in MESSAGES:
        raise ConfigError(f"{what} format must be {' or '.join(MESSAGES)}, got {layout.format}")
    if recode != Recode():
        raise ConfigError(
            f"{what} images must stay as they are, got another size, encoding or colour; the layer that "
            "reads them resizes them with transform_param { resize_param }"
        )


def shard_name(layout: Layout, shard: int) -> str:
    """What a shard's file or folder is called."""
    return f"part-{shard:05d}-of-{layout.shards:05d}{SUFFIX.get(layout.format, '')}"


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
        found = [name for name in os.listdir(part) if name not in (_LOCK, _PLAN)]
        done = [name for name in found if _DONE.fullmatch(name)]
        for name in set(found) - set(done):  # what a killed writer was at
            remove(os.path.join(part, name))
        if done:
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
    path: str,
    layout: Layout,
    names: list[str],
    records: Iterator[Record],
    told: Callable[[int], None],
    *,
    as_messages: bool,
) -> None:
    digests: list[bytes] = []

    def noted() -> Iterator[tuple[str, Record]]:
        for number, (name, read) in enumerate(zip(names, records, strict=True), 1):
            record = stored(read, layout.format)
            digests.append(digest_of(record))
            yield name, record
            if number % _TOLD_EVERY == 0:
                told(number)

    write_part(path, layout.format, noted(), as_messages=as_messages)
    items = open_part(path, layout.format, as_messages=as_messages)
    try:
        _verify(items, digests)
    except BaseException:
        remove(path)
        raise
    finally:
        items.close()


def _verify(items: Items, digests: list[bytes]) -> None:
    if len(items) != len(digests):
        raise DataError(f"{items.source}: must hold {len(digests)} records, got {len(items)}")
    for number, digest in enumerate(digests):
        record = items.read(number)
        if digest_of(record) != digest:
            raise DataError(f"{record.where}: must be what was written, got other bytes; check the disk")


def digest_of(record: Record) -> bytes:
    """Of labels and image."""
    hashed = hashlib.blake2b(np.array(record.labels, np.float32).tobytes(), digest_size=16)
    if record.pixels is not None:
        hashed.update(f"{record.pixels.shape}{record.pixels.dtype}".encode())
        hashed.update(np.ascontiguousarray(record.pixels).data)
    else:
        hashed.update(record.encoded or b"")
    return hashed.digest()


def _publish(part: str, out: str, layout: Layout, overwrite: bool) -> None:
    try:
        refuse_existing(out, overwrite)  # another writer may have been quicker
        if os.path.lexists(out):
            old = part + ".old"
            os.rename(out, old)
            shutil.rmtree(old, ignore_errors=True)
            if os.path.lexists(old):
                os.remove(old)
        if layout.format in ALONE and layout.shards == 1:
            os.rename(os.path.join(part, shard_name(layout, 0)), out)
            shutil.rmtree(part)
        else:
            os.remove(os.path.join(part, _PLAN))
            os.remove(os.path.join(part, _LOCK))
            if layout.format == "hdf5":
                _list_files(part, out)
            os.rename(part, out)
    except OSError as error:
        raise DataError(f"{out}: must be writable, got {error}") from error


def _list_files(part: str, out: str) -> None:
    """The list that HDF5Data reads: where the files will be."""
    names = sorted(os.listdir(part))
    with open(os.path.join(part, LIST), "w", encoding="utf-8") as file:
        file.writelines(f"{os.path.join(out, name)}\n" for name in names)
