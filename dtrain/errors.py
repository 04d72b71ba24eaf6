"""What can go wrong, as one tree; every one prints without a traceback.

DtrainError
├── ConfigError        a prototxt field, a flag or a combination of them breaks a rule
│   └── PrototxtError  the text itself does not parse; carries file, line and column
├── DataError          a source, a record or a label is missing or malformed
│   └── SourceError    a source can no longer be read: no fault of a record, which another could replace
├── WeightsError       a caffemodel does not fit the net
├── SnapshotError      a snapshot is missing, partial, or of another run
├── BackendError       an engine or device that was asked for cannot be used
└── CommError          ranks disagree, or one of them is gone
    └── StallError     a collective did not finish in time; names rank, phase and bucket

The message reads `<where>: <what> must be <rule>, got <value>[; <remedy>]`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DtrainError(Exception):
    """A fault of the input or the surroundings, told in one line."""


class ConfigError(DtrainError):
    """A prototxt field, a flag, or a combination of them breaks a rule."""


class PrototxtError(ConfigError):
    """Text that is not a valid message; `line` and `column` count from 1."""

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.file = file
        self.line = line
        self.column = column


class DataError(DtrainError):
    """A source, a record or a label is missing or malformed; `sample` is its place in the batch if known."""

    def __init__(self, message: str, *, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample


class SourceError(DataError):
    """A source was changed or lost while it was read: no fault of a record, which another could replace."""


class WeightsError(DtrainError):
    """Stored weights do not fit the net that is to take them."""


class SnapshotError(DtrainError):
    """A snapshot is missing, partial, or belongs to another run."""


class BackendError(DtrainError):
    """An engine or device that was asked for cannot be used here."""


class CommError(DtrainError):
    """Ranks disagree about the job, or one of them is gone."""


class StallError(CommError):
    """A collective did not finish in time."""


def unknown_name(what: str, got: str, known: Iterable[str]) -> str:
    """`unknown <what> "got"` with the nearest known name and the list of all, for error texts."""
    names = sorted(known)
    nearest = difflib.get_close_matches(got, names, n=1, cutoff=0.6)
    if not nearest:
        lowered = {name.lower(): name for name in names}
        match = difflib.get_close_matches(got.lower(), list(lowered), n=1, cutoff=0.6)
        nearest = [lowered[match[0]]] if match else []
    hint = f'; did you mean "{nearest[0]}"?' if nearest else ""
    return f'unknown {what} "{got}"{hint} (known: {", ".join(names)})'
