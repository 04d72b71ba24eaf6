"""The formats that a conversion writes: one part of it in each, and how that part is read again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from dtrain.data.backends import open_reader
from dtrain.data.convert.annotated_items import MessageItems
from dtrain.data.convert.arrow_writer import write_arrow
from dtrain.data.convert.items import LIST, FileItems, Items, ReaderItems
from dtrain.data.convert.leveldb_writer import write_leveldb
from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.convert.safe_file import SafeFile
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.data.decode import encode_pixels_as
from dtrain.data.hdf5_rows import hdf5
from dtrain.data.reader import DatumReader
from dtrain.data.record import Record
from dtrain.errors import DataError

Named = Iterator[tuple[str, Record]]

FORMATS: Final = ("lmdb", "arrow", "parquet", "leveldb", "hdf5", "images")
ALONE: Final = ("lmdb", "leveldb", "images")
"""Formats of which a single part is all that there is."""
WHOLE: Final = ("leveldb", "images")
"""Formats that have no parts."""
MESSAGES: Final = ("lmdb", "leveldb")
"""Formats whose records are messages of any kind."""
SUFFIX: Final = {"arrow": ".arrow", "parquet": ".parquet", "hdf5": ".h5"}

_LEAST, _MOST = -(2**31), 2**31 - 1  # an int32 in a Datum, and in Caffe where it reads a list
_KEY_BYTES = 511  # LMDB's longest key
_ROWS, _CHUNK_ROWS = 256, 16  # of HDF5 that are written at once, and that lie together


def write_part(path: str, kind: str, records: Named, *, as_messages: bool = False) -> None:
    """Write the records to `path`, which is whole or absent after it.

    as_messages: the records are those of MessageItems; `kind` is one of MESSAGES.
    """
    if kind == "lmdb":
        write_lmdb(path, _messages(records, as_messages))
    elif kind == "leveldb":
        write_leveldb(path, _messages(records, as_messages))
    elif kind in ("arrow", "parquet"):
        write_arrow(path, records, parquet=kind == "parquet")
    else:
        writers: dict[str, Callable[[str, Named], None]] = {
            "hdf5": _write_hdf5,
            "images": _write_images,
        }
        beside = path + ".new"
        remove(beside)
        try:
            writers[kind](beside, records)
            os.rename(beside, path)
        except OSError as error:
            raise DataError(f"{path}: must be writable, got {error}") from error
        finally:
            remove(beside)


def open_part(path: str, kind: str, *, as_messages: bool = False) -> Items:
    """What `write_part` has written."""
    if kind == "images":
        return FileItems.of_list(os.path.join(path, LIST), path + "/")
    backend = {"lmdb": "LMDB", "leveldb": "LEVELDB", "hdf5": "HDF5"}.get(kind, "ARROW")
    reader = open_reader(path, backend)
    if as_messages:
        assert isinstance(reader, DatumReader)
        return MessageItems(reader)
    return ReaderItems(reader)


def stored(record: Record, kind: str) -> Record:
    """The record as the format keeps it: files of images hold no bare pixels."""
    if kind != "images" or record.pixels is None:
        return record
    if record.pixels.dtype != np.uint8 or record.pixels.shape[0] not in (1, 3):
        raise DataError(
            f"{record.where}: an image file must get 1 or 3 channels of 8 bits, got "
            f"{record.pixels.shape[0]} of {record.pixels.dtype}"
        )
    return Record(record.where, record.labels, encoded=encode_pixels_as("png", record.pixels, record.where))


def remove(path: str) -> None:
    """A file or folder that may be there."""
    shutil.rmtree(path, ignore_errors=True)
    if os.path.lexists(path):
        os.remove(path)


def key_of(number: int, name: str) -> bytes:
    """The number, then the name if there is one, as Caffe's converters do."""
    return (b"%08d" % number + (b"_" + os.fsencode(name) if name else b""))[:_KEY_BYTES]


def datum_of(record: Record) -> bytes:
    """The record as a Datum message."""
    label = _whole_label(record, "a Datum")
    if record.pixels is not None:
        return encode_pixels(record.pixels, label)
    return encode_image(bytes(record.encoded or b""), label)


def _whole_label(record: Record, what: str) -> int:
    label = record.labels[0]
    if len(record.labels) != 1 or label != int(label):
        raise DataError(
            f"{record.where}: {what} must have one whole label, got {record.labels}; write Arrow files"
        )
    if not _LEAST <= label <= _MOST:
        raise DataError(f"{record.where}: {what} must have a label from {_LEAST} to {_MOST}, got {label:.0f}")
    return int(label)


def _messages(records: Named, as_messages: bool) -> Iterator[tuple[bytes, bytes]]:
    for n, (name, record) in enumerate(records):
        yield key_of(n, name), bytes(record.encoded or b"") if as_messages else datum_of(record)


def _write_hdf5(path: str, records: Named) -> None:
    rows: list[Record] = []
    with SafeFile(path) as target, hdf5().File(target, "w") as file:
        for _, record in records:
            rows.append(record)
            if len(rows) == _ROWS:
                _append(file, rows)
                rows = []
                if target.error is not None:
                    break
        if rows and target.error is None:
            _append(file, rows)


def _append(file: Any, rows: list[Record]) -> None:
    kept = file["data"] if "data" in file else rows[0].pixels
    images = []
    for record in rows:
        if record.pixels is None or kept is None:
            raise DataError(
                f"{record.where}: HDF5 files must get pixels, got an encoded image; pass --raw, and a size "
                "if images differ"
            )
        if record.pixels.shape != kept.shape[-3:] or record.pixels.dtype != kept.dtype:
            raise DataError(
                f"{record.where}: all images of an HDF5 file must be alike, got {record.pixels.dtype} of "
                f"{record.pixels.shape} after {kept.dtype} of {kept.shape[-3:]}"
            )
        images.append(record.pixels)
    labels = np.array([record.labels for record in rows], np.float32)
    labels = labels[:, 0] if labels.shape[1] == 1 else labels
    for name, values in (("data", np.stack(images)), ("label", labels)):
        form = values.shape[1:]
        if name not in file:
            chunk = (min(len(rows), _CHUNK_ROWS), *form)
            file.create_dataset(name, data=values, maxshape=(None, *form), chunks=chunk)
        else:
            start = len(file[name])
            file[name].resize(start + len(values), axis=0)
            file[name][start:] = values


def _write_images(path: str, records: Named) -> None:
    os.mkdir(path)
    with open(os.path.join(path, LIST), "w", encoding="utf-8") as listed:
        for number, (_, record) in enumerate(records):
            content = bytes(record.encoded or b"")
            name = f"{number:08d}{_suffix_of(content)}"
            with open(os.path.join(path, name), "wb") as file:
                file.write(content)
            listed.write(f"{name} {_whole_label(record, 'a line of a list')}\n")


def _suffix_of(content: bytes) -> str:
    """What an image file is called by its first bytes; decoders look at these alone."""
    kinds = ((b"\xff\xd8", ".jpg"), (b"\x89PNG", ".png"), (b"BM", ".bmp"), (b"RIFF", ".webp"))
    return next((suffix for start, suffix in kinds if content.startswith(start)), ".img")
