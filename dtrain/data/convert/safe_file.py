"""A file for libraries that crash when a write fails, as HDF5 does on a full disk."""

from __future__ import annotations

from types import TracebackType
from typing import final


@final
class SafeFile:
    """A new file, written and read at once; a write that fails ends it silently until it is closed.

    `close`, or leaving the `with` block, raises what went wrong.
    """

    def __init__(self, path: str) -> None:
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 - it is a context manager itself
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                rest = view
                while len(rest):
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        return len(view)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, out: memoryview) -> int:
        return self._file.readinto(out)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        if self.error is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.error = error
        return 0

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self._file.close()
        if self.error is not None:
            raise self.error

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
