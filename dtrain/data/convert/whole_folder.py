"""A new folder, whole or absent: written beside its place, then renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, final

from dtrain.errors import DataError


@final
class Beside(NamedTuple):
    """Two empty folders on the file system where the result will be."""

    whole: str
    """What is in it takes its place on a good end."""
    spare: str
    """For what is not kept."""


@contextmanager
def whole_folder(path: str, overwrite: bool, failures: type[Exception]) -> Iterator[Beside]:
    """Where to write what `path` is to hold; a DataError tells of failures of the disk or of the writer."""
    refuse_existing(path, overwrite)
    parent = os.path.dirname(os.path.abspath(path))
    place = ""
    try:
        os.makedirs(parent, exist_ok=True)
        place = tempfile.mkdtemp(".part", os.path.basename(os.path.abspath(path)) + ".", parent)
        whole, spare, old = (os.path.join(place, name) for name in ("whole", "spare", "old"))
        os.mkdir(whole)
        os.mkdir(spare)
        yield Beside(whole, spare)
        for name in os.listdir(whole):
            _sync(os.path.join(whole, name))
        refuse_existing(path, overwrite)  # another writer may have been quicker
        if os.path.lexists(path):
            os.rename(path, old)
        os.rename(whole, path)
        _sync(parent)
    except (OSError, failures) as error:
        raise DataError(f"{path}: must be writable, got {error}{_room(parent)}") from error
    finally:
        if place:
            shutil.rmtree(place, ignore_errors=True)


def refuse_existing(path: str, overwrite: bool) -> None:
    """Raise if something is at `path` and may not be replaced."""
    if os.path.lexists(path) and not overwrite:
        raise DataError(f"{path}: must not exist yet, got an existing one; pass --overwrite to replace it")


def _room(folder: str) -> str:
    """How much may still be written: LMDB says of a full disk no more than that a write failed."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f"; {free / 1e6:,.0f} MB are free there"


def _sync(path: str) -> None:
    """Have what was written to a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
