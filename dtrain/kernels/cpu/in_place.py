"""What operators need where top and bottom may be one array."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray


def target(array: SyncedArray, source: SyncedArray) -> Plain:
    """Where to write a result computed from `source`: its own values if both are one array."""
    return array.plain_mutable() if array is source else array.plain_overwrite()


@final
class Kept:
    """A bottom's values for backward: a copy of them where forward overwrites the bottom."""

    def __init__(self) -> None:
        self._copy: Plain | None = None

    def keep(self, bottom: SyncedArray, top: SyncedArray) -> None:
        """Call before forward writes the top."""
        if top is not bottom:
            self._copy = None
        elif self._copy is not None and self._copy.shape == bottom.shape:
            np.copyto(self._copy, bottom.plain())
        else:
            self._copy = bottom.plain().copy()

    def values(self, bottom: SyncedArray) -> Plain:
        """What the bottom held when forward began."""
        return bottom.plain() if self._copy is None else self._copy
