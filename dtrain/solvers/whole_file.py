"""Files that are either whole or absent."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DIGEST_BYTES: Final = 16
CHUNK_BYTES: Final = 1 << 22


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`: on a good end it is flushed to the disk and takes the file's place."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield beside
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Through to the disk; a folder's flush makes a rename durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """BLAKE2b of the file's bytes."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            state.update(chunk)
    return state.hexdigest()
