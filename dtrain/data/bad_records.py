"""Records that cannot be used: an error, or told and replaced by the next good one up to a limit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import final

from dtrain.data.sampler import Numbers
from dtrain.errors import DataError, SourceError

logger = logging.getLogger(__name__)


@final
class BadRecords:
    """Those of one source that one rank was served replacements for.

    What stands in for a record depends on the source alone, so every run at any size reads the same. Threads
    that read ahead meet bad records early and in any order; one counts when the batch that asked for it is
    served, so that the step at which a run stops does not depend on the threads.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        """How many different records of the source may be bad in the whole job; 0 raises for the first."""
        self.replaced: dict[int, str] = {}
        """The different ones so far, in the order in which they were met, and why each is bad."""
        self._reasons: dict[int, str] = {}  # of all that were met, served or not
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """How many different ones there were so far."""
        return len(self.replaced)

    @property
    def has_met_any(self) -> bool:
        """Whether a thread has met one, served or not."""
        return bool(self._reasons)

    def first_good(
        self, index: int, num_records: int, use: Callable[[int], object], *, start: int = 0
    ) -> int:
        """The first record, from `index` on and from `start` again after the end, that `use` does not refuse.

        It is one of the num_records from `start` on. Safe to call from many threads. Raises DataError where
        more than the limit follow each other.
        """
        for met in range(1, num_records + 1):
            try:
                use(index)
            except SourceError:
                raise
            except DataError as error:
                if self.limit == 0:
                    raise
                with self._lock:
                    self._reasons.setdefault(index, str(error))
                if met > self.limit:
                    raise too_many(str(error), self.limit) from error
                index = start + (index + 1 - start) % num_records
            else:
                return index
        raise DataError(f"{self._reasons[index]}; no record of the source can be used")

    def serve(self, wanted: Numbers, taken: Numbers, num_records: int, *, start: int = 0) -> None:
        """Count what `taken` replaces in a batch of `wanted`. Raises DataError beyond the limit."""
        for index, good in zip(wanted.tolist(), taken.tolist(), strict=True):
            while index != good:
                if index not in self.replaced:
                    reason = self.replaced[index] = self._reasons[index]
                    if len(self.replaced) > self.limit:
                        raise too_many(reason, self.limit)
                    logger.warning("bad record, replaced by the next: %s", reason)
                index = start + (index + 1 - start) % num_records


def too_many(reason: str, limit: int) -> DataError:
    """The error of one bad record more than the limit."""
    return DataError(
        f"{reason}; bad records of a source must number at most {limit} in the whole job, "
        "got this one besides"
    )
