"""The names in a folder, and those by which a source is known."""

from __future__ import annotations

import os
from typing import Final

from dtrain.errors import DataError

LMDB_FILE: Final = "data.mdb"
LEVELDB_FILE: Final = "CURRENT"
ARROW_SUFFIXES: Final = (".arrow", ".feather", ".parquet")


def names_in(folder: str) -> list[str]:
    """Sorted, of files and folders; raises DataError where the folder cannot be looked into."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise unlisted(folder, error) from error


def unlisted(folder: str, error: OSError) -> DataError:
    """The error of a folder that cannot be looked into."""
    return DataError(f"{folder}: folder must be readable, got {error.strerror}")
