"""What a source holds, and whether all of it can be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import final

import numpy as np

from dtrain.data.convert.annotated_items import AnnotatedItems, reader_of_boxes
from dtrain.data.convert.items import Items
from dtrain.data.convert.sources import open_items
from dtrain.data.decode import decode_image
from dtrain.data.record import Record
from dtrain.errors import DataError, SourceError

_SAMPLED = 1000
_STRETCH = 256  # records that a thread takes at a time
_KEPT = 100  # faults that are told one by one


@final
@dataclass
class Summary:
    """Of some records: how many there are of each kind."""

    records: int = 0
    labels: Counter[tuple[float, ...]] = field(default_factory=Counter)
    shapes: Counter[tuple[int, ...]] = field(default_factory=Counter)
    """(C, H, W) of the images."""
    encodings: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    """Of images as they are stored."""
    bad: int = 0
    faults: list[str] = field(default_factory=list)
    """The first of them."""

    def add(self, other: Summary) -> None:
        """Count the records of another summary too."""
        self.records += other.records
        self.labels += other.labels
        self.shapes += other.shapes
        self.encodings += other.encodings
        self.num_bytes += other.num_bytes
        self.bad += other.bad
        self.faults = (self.faults + other.faults)[:_KEPT]

    def count(self, items: Items, index: int) -> None:
        """Read a record and decode its image."""
        self.records += 1
        try:
            record = items.read(index)
            pixels = record.pixels
            if pixels is None:
                assert record.encoded is not None
                pixels = decode_image(record.encoded, "as stored", record.where)
        except SourceError:
            raise
        except DataError as error:
            self.bad += 1
            if len(self.faults) < _KEPT:
                self.faults.append(str(error))
            return
        self.labels[record.labels] += 1
        self.shapes[pixels.shape] += 1
        self.encodings[encoding_of(record)] += 1
        self.num_bytes += pixels.nbytes if record.encoded is None else len(record.encoded)


def open_any(source: str, backend: str, list_file: str) -> Items:
    """Whatever a conversion reads, and databases of images with boxes."""
    items = open_items(source, backend=backend, list_file=list_file)
    reader = reader_of_boxes(items)
    return items if reader is None else AnnotatedItems(reader)


def sample(items: Items) -> Summary:
    """Of up to a thousand records, evenly spaced."""
    summary = Summary()
    for index in np.unique(np.linspace(0, len(items) - 1, min(len(items), _SAMPLED)).astype(np.int64)):
        summary.count(items, int(index))
    return summary


def check(items: Items, *, threads: int = 1, progress: Callable[[int], None] | None = None) -> Summary:
    """Of all records, every one read and decoded."""
    whole = Summary()
    with ThreadPoolExecutor(threads, thread_name_prefix="check") as pool:
        for part in pool.map(lambda stretch: _check(items, stretch), _stretches(len(items))):
            whole.add(part)
            if progress is not None:
                progress(whole.records)
    return whole


def _check(items: Items, stretch: range) -> Summary:
    summary = Summary()
    for index in stretch:
        summary.count(items, index)
    return summary


def _stretches(num: int) -> Iterator[range]:
    return (range(start, min(num, start + _STRETCH)) for start in range(0, num, _STRETCH))


def encoding_of(record: Record) -> str:
    """How the image of a record is stored."""
    if record.encoded is None:
        assert record.pixels is not None
        return f"raw {record.pixels.dtype}"
    start = bytes(record.encoded[:12])
    for magic, name in ((b"\xff\xd8", "JPEG"), (b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"GIF8", "GIF")):
        if start.startswith(magic):
            return name
    return "WebP" if start[8:] == b"WEBP" else "another encoding"
