"""LMDB files opened for reading, each once in a process however many readers ask for it."""

from __future__ import annotations

import errno
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, final

import lmdb

from dtrain.data.file_length import FileLength
from dtrain.errors import DataError, SourceError

_META_PAGES = 2  # at the start of a file


@final
class Environment:
    """One LMDB file and a pool of read transactions on it.

    The file is opened without LMDB's lock file: that needs no write permission and no place in a table of
    126 readers, leaves nothing behind when a process is killed, and holds no state that a fork could copy.
    What the lock would guard against, a writer reusing pages under a reader, is noticed instead: every
    commit changes the number of the last transaction, which `transaction` compares.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self._mapped = FileLength(source, _path_of(source))
        if self._mapped.num_bytes == 0:
            raise DataError(f"{source}: must be an LMDB, got an empty file; copy or convert it again")
        try:
            self._env: Any = lmdb.open(
                source, subdir=os.path.isdir(source), readonly=True, lock=False, create=False, readahead=True
            )
        except lmdb.Error as error:
            raise DataError(_why_not(source, error)) from error
        self._pool: deque[Any] = deque()
        self._commit: int = self._env.info()["last_txnid"]
        stat = self._env.stat()
        self.num_entries: int = stat["entries"]
        in_use = _META_PAGES + stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        self._refuse_cut(in_use, self._env.info()["last_pgno"] + 1, stat["psize"])

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A transaction that no other thread uses meanwhile; its values are memoryviews into the file."""
        self._mapped.check()
        try:
            txn = self._pool.pop()
        except IndexError:
            txn = self._env.begin(buffers=True)
        try:
            yield txn
        finally:
            self._pool.append(txn)
        if self._env.info()["last_txnid"] != self._commit:
            raise SourceError(
                f"{self.source}: the database must stay as it is while it is read, got a write to it; "
                "convert into a new folder and rename that"
            )

    def _refuse_cut(self, pages_in_use: int, pages_ever: int, page_bytes: int) -> None:
        """Raise unless the file is whole; one whose last pages are free may end before them, at a page."""
        num_bytes = self._mapped.num_bytes
        is_cut_inside = num_bytes < pages_ever * page_bytes and num_bytes % page_bytes
        if num_bytes < pages_in_use * page_bytes or is_cut_inside:
            self._env.close()
            raise DataError(
                f"{self.source}: {self._mapped.path} must have the {pages_ever * page_bytes} bytes that it "
                f"says it has, got {num_bytes}; copy or convert it again"
            )

    def close(self) -> None:
        self._pool.clear()
        self._env.close()


@final
class _Registry:
    """The environments that are open, by file: py-lmdb refuses to open one twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[tuple[int, int], tuple[Environment, int]] = {}
        os.register_at_fork(after_in_child=self._renew_lock)

    def acquire(self, source: str) -> tuple[tuple[int, int], Environment]:
        file = _data_file(source)
        with self._lock:
            environment, users = self._open.get(file, (None, 0))
            if environment is None:
                environment = Environment(source)
            self._open[file] = (environment, users + 1)
            return file, environment

    def release(self, file: tuple[int, int]) -> None:
        with self._lock:
            environment, users = self._open.pop(file)
            if users > 1:
                self._open[file] = (environment, users - 1)
            else:
                environment.close()

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


@cache
def registry() -> _Registry:
    """The one registry of this process."""
    return _Registry()


def _path_of(source: str) -> str:
    return os.path.join(source, "data.mdb") if os.path.isdir(source) else source


def _data_file(source: str) -> tuple[int, int]:
    """Device and inode of the file that holds the data, whichever path leads to it."""
    try:
        stat = os.stat(_path_of(source))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise DataError(f"{source}: must be readable, got {error.strerror}") from error
        missing = f"a folder without data.mdb in {source}" if os.path.isdir(source) else "no such path"
        raise DataError(
            f"{source}: must be an LMDB, got {missing} (seen from {os.getcwd()}); "
            "`dtrain convert` writes one (mnist, cifar10, digits, imageset)"
        ) from error
    return stat.st_dev, stat.st_ino


def _why_not(source: str, error: Exception) -> str:
    if isinstance(error, (lmdb.InvalidError, lmdb.CorruptedError, lmdb.VersionMismatchError)):
        return (
            f"{source}: must be an LMDB, got a file that LMDB refuses ({error}); `dtrain convert` writes one"
        )
    return f"{source}: must be readable as an LMDB, got {error}"
