"""What a source of records can do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.datum_scan import Messages
from dtrain.data.record import Record

Indices = npt.NDArray[np.int64]


class Reader(ABC):
    """Records 0..len-1 in an order that never changes; every method may be called from many threads."""

    name: str
    """The source, as errors name it."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Record:
        """The record, whose arrays and bytes stay valid after the reader is closed."""

    @abstractmethod
    def where(self, index: int) -> str:
        """Source and key of a record, for errors."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the reader holds; calling it again does nothing."""


class DatumReader(Reader):
    """A reader whose records are stored as Datum messages, one after the other in the file's own memory."""

    @abstractmethod
    def datums(self, indices: Indices) -> AbstractContextManager[Messages]:
        """The serialised messages, without a copy: they are valid inside the `with` block only."""


@final
class Columns(NamedTuple):
    """Some records: their labels, and either where pixels of uint8 lie or an array for each image."""

    labels: npt.NDArray[np.float32]
    """(N, L)"""
    images: list[npt.NDArray[Any]]
    """Of each record the encoded bytes (1-D) or the pixels (C, H, W); empty where `addresses` says it."""
    addresses: Indices
    """Of the first byte of each record's pixels."""
    shape: tuple[int, ...]
    """(C, H, W) of the pixels."""
    alive: object
    """What must be kept meanwhile."""


class ColumnReader(Reader):
    """A reader whose records lie in columns, of which it gives many at once."""

    @abstractmethod
    def columns(self, indices: Indices, *, as_arrays: bool = False) -> AbstractContextManager[Columns]:
        """The records, valid inside the `with` block only; with `as_arrays` all `images` are there."""
