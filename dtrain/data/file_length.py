"""Files that are cut while they are read, of which nobody else tells.

What is gone from a memory map kills who touches it by SIGBUS; HDF5 reads it as zeros.
"""

from __future__ import annotations

import os
from typing import final

from dtrain.errors import SourceError


@final
class FileLength:
    """How long a file was when it was opened, to be compared before each batch is read from it.

    What is cut off between that and the end of the batch is not noticed here.
    """

    def __init__(self, source: str, path: str) -> None:
        self.source = source
        self.path = path
        self._absolute = os.path.abspath(path)
        stat = os.stat(path)
        self.num_bytes = stat.st_size
        self._file = stat.st_dev, stat.st_ino

    def check(self) -> None:
        """Raise SourceError if the file is shorter; one removed or replaced stays whole for its readers."""
        try:
            stat = os.stat(self._absolute)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        except OSError as error:  # a server that lost the file, or a disk that fails
            raise SourceError(
                f"{self.source}: {self.path} must stay readable while it is read, got {error.strerror}"
            ) from error
        if stat.st_size < self.num_bytes and (stat.st_dev, stat.st_ino) == self._file:
            raise SourceError(
                f"{self.source}: {self.path} must keep its {self.num_bytes} bytes while it is read, "
                f"got {stat.st_size}; write a changed data set beside it, and give that its name"
            )
