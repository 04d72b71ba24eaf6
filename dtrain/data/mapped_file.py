"""Files that are read through a memory map: what is cut off one while it is mapped kills who touches it.

The kernel answers with the signal SIGBUS, which nothing in a process can turn into an error.
"""

from __future__ import annotations

import os
from typing import final

from dtrain.errors import DataError


@final
class MappedFile:
    """How long a file was when it was mapped, to be compared before each batch is read from it.

    What is cut off between that and the end of the batch still ends the process.
    """

    def __init__(self, source: str, path: str) -> None:
        self.source = source
        self.path = os.path.abspath(path)
        stat = os.stat(path)
        self.num_bytes = stat.st_size
        self._file = stat.st_dev, stat.st_ino

    def check(self) -> None:
        """Raise DataError if the file is shorter; one removed, or replaced by another, stays mapped whole."""
        try:
            stat = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        except OSError as error:  # a server that lost the file, or a disk that fails
            raise DataError(
                f"{self.source}: {self.path} must stay readable while it is read, got {error.strerror}"
            ) from error
        if stat.st_size < self.num_bytes and (stat.st_dev, stat.st_ino) == self._file:
            raise DataError(
                f"{self.source}: {self.path} must keep its {self.num_bytes} bytes while it is read, "
                f"got {stat.st_size}; write a changed data set beside it, and give that its name"
            )
