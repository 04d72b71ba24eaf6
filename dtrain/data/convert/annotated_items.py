"""Records with boxes, for who looks at a database or copies it without training on it."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.data.annotated import AnnotatedRecord, decode_annotated
from dtrain.data.convert.items import Items, ReaderItems, RecordsOfReader
from dtrain.data.reader import DatumReader
from dtrain.data.record import Record
from dtrain.errors import DataError

_TRIED = 10  # records that may be damaged before one tells


@final
class AnnotatedItems(RecordsOfReader[DatumReader]):
    """The images of AnnotatedDatum messages; the labels of a record are those of its objects, each once."""

    def read(self, index: int) -> Record:
        _, record = _message(self.reader, index)
        labels = tuple(np.unique(record.objects.tags[:, 0]).tolist())
        image = record.image
        return Record(image.where, labels, image.pixels, image.encoded)


@final
class MessageItems(RecordsOfReader[DatumReader]):
    """AnnotatedDatum messages as they are: `encoded` of a record is the whole message, without labels."""

    def read(self, index: int) -> Record:
        value, record = _message(self.reader, index)
        return Record(record.image.where, (), encoded=value)


def _message(reader: DatumReader, index: int) -> tuple[bytes, AnnotatedRecord]:
    """The bytes and what they say."""
    with reader.datums(np.array([index])) as messages:
        value = messages.bytes_of(0).tobytes()
    return value, decode_annotated(value, reader.where(index), has_type=True)


def reader_of_boxes(items: Items) -> DatumReader | None:
    """What reads the items, if their records have boxes."""
    if isinstance(items, ReaderItems) and isinstance(items.reader, DatumReader) and holds_boxes(items.reader):
        return items.reader
    return None


def holds_boxes(reader: DatumReader) -> bool:
    """Whether the first record that can be read has boxes; no bytes are a message of both kinds."""
    for index in range(min(len(reader), _TRIED)):
        try:
            reader.read(index)
        except DataError:
            try:
                AnnotatedItems(reader).read(index)
            except DataError:
                continue
            return True
        return False
    return False
