"""Any number of images through a net of fixed batch size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtrain.errors import ConfigError

Arrays: TypeAlias = dict[str, NDArray[Any]]


def as_arrays(given: Mapping[str, ArrayLike]) -> tuple[Arrays, int]:
    """The arrays, and how many images each of them holds."""
    arrays = {name: np.asarray(value) for name, value in given.items()}
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        told = ", ".join(f"{count} of {name}" for name, count in counts.items())
        raise ConfigError(f"inputs must be arrays of equally many images, at least one, got {told or 'none'}")
    return arrays, next(iter(counts.values()))


@final
class Rows:
    """Collects the results of the batches, and gives them back without those of the padding."""

    def __init__(self, count: int, batch_size: int) -> None:
        self._count = count
        self._batch_size = batch_size
        self._parts: dict[str, list[NDArray[Any]]] = {}

    def split(self, arrays: Arrays) -> Iterator[Arrays]:
        """Batches of rows; zeros fill the last one."""
        size = self._batch_size
        for start in range(0, self._count, size):
            batch = {name: array[start : start + size] for name, array in arrays.items()}
            missing = start + size - self._count
            if missing > 0:
                batch = {
                    name: np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
                    for name, rows in batch.items()
                }
            yield batch

    def add(self, results: Mapping[str, NDArray[Any]]) -> None:
        """What one batch gave; copied."""
        for name, values in results.items():
            self._parts.setdefault(name, []).append(values.copy())

    def joined(self) -> Arrays:
        """All rows of each result, or one for each batch where it has no axis of images."""
        joined = {}
        for name, parts in self._parts.items():
            if all(part.shape[:1] == (self._batch_size,) for part in parts):
                joined[name] = np.concatenate(parts)[: self._count]
            else:
                joined[name] = np.stack(parts)
        return joined
