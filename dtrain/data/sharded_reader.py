"""Several databases of Datum messages as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import final

import numpy as np

from dtrain.data.datum_scan import Messages
from dtrain.data.reader import DatumReader, Indices
from dtrain.data.record import Record


@final
class ShardedReader(DatumReader):
    """The records of the first database, then those of the second, and so on."""

    def __init__(self, name: str, shards: Sequence[DatumReader]) -> None:
        self.name = name
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in self._shards])
        self._starts = self._ends - [len(shard) for shard in self._shards]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, index: int) -> Record:
        number, inside = self._place(index)
        return self._shards[number].read(inside)

    def where(self, index: int) -> str:
        number, inside = self._place(index)
        return self._shards[number].where(inside)

    @contextmanager
    def datums(self, indices: Indices) -> Iterator[Messages]:
        numbers = np.searchsorted(self._ends, indices, side="right")
        inside = indices - self._starts[numbers]
        addresses, lengths = np.empty(len(indices), np.int64), np.empty(len(indices), np.int64)
        alive: list[object] = []
        with ExitStack() as stack:
            for number in np.unique(numbers).tolist():
                mine = np.flatnonzero(numbers == number)
                found = stack.enter_context(self._shards[number].datums(inside[mine]))
                addresses[mine], lengths[mine] = found.addresses, found.lengths
                alive.append(found.alive)
            yield Messages(addresses, lengths, alive)

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return number, index - int(self._starts[number])

    def close(self) -> None:
        for shard in self._shards:
            shard.close()
