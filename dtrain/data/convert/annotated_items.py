"""Records with boxes, for who looks at a database without training on it."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.data.annotated import decode_annotated
from dtrain.data.convert.items import Items
from dtrain.data.reader import DatumReader
from dtrain.data.record import Record
from dtrain.errors import DataError

_TRIED = 10  # records that may be damaged before one tells


@final
class AnnotatedItems(Items):
    """The images of AnnotatedDatum messages; the labels of a record are those of its objects, each once."""

    def __init__(self, reader: DatumReader) -> None:
        self.source = reader.name
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def read(self, index: int) -> Record:
        with self._reader.datums(np.array([index])) as messages:
            value = messages.bytes_of(0).tobytes()
        record = decode_annotated(value, self._reader.where(index), has_type=True)
        labels = tuple(np.unique(record.objects.tags[:, 0]).tolist())
        image = record.image
        return Record(image.where, labels, image.pixels, image.encoded)

    def name_of(self, index: int) -> str:
        return ""

    def close(self) -> None:
        self._reader.close()


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
