"""Records that cannot be used: an error, or told and replaced by the next good one up to a limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import final

from dtrain.errors import DataError

logger = logging.getLogger(__name__)


@final
class BadRecords:
    """Those of one source that one rank has met; safe to use from many threads.

    What stands in for a record depends on the source alone, so every run at any size reads the same.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        """How many different records may be bad; 0 raises for the first."""
        self._met: set[int] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many different ones there were so far."""
        return len(self._met)

    def first_good(self, index: int, num_records: int, use: Callable[[int], object]) -> int:
        """The first record, from `index` on and from 0 again after the end, for which `use` raises nothing.

        Raises DataError for one bad record more than the limit.
        """
        last: DataError | None = None
        for _ in range(num_records):
            try:
                use(index)
            except DataError as error:
                self._note(index, error)
                last, index = error, (index + 1) % num_records
            else:
                return index
        raise DataError(f"{last}; no record of the source can be used")

    def _note(self, index: int, error: DataError) -> None:
        if self.limit == 0:
            raise error
        with self._lock:
            if index in self._met:
                return
            if len(self._met) >= self.limit:
                raise DataError(
                    f"{error}; bad records must number at most {self.limit}, got this one besides"
                ) from error
            self._met.add(index)
            logger.warning(
                "bad record %d of at most %d, replaced by the next: %s", len(self._met), self.limit, error
            )
