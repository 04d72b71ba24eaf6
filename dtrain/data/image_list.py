"""ImageData's source: a text file with a path and a label on each line."""

from __future__ import annotations

import os
from typing import final

from dtrain.data.decode import Colour, decode_image, resize_image, short_side_size
from dtrain.data.reader import Reader
from dtrain.data.record import Record
from dtrain.errors import ConfigError, DataError


@final
class ImageListReader(Reader):
    """Images in the order of the lines, decoded, and resized if the sizes are given.

    short_side makes every shorter side so long; min_height and min_width enlarge images that are smaller in
    either until they are so in none. Both keep the image's form.
    """

    def __init__(
        self,
        source: str,
        *,
        root_folder: str = "",
        new_height: int = 0,
        new_width: int = 0,
        short_side: int = 0,
        min_height: int = 0,
        min_width: int = 0,
        is_color: bool = True,
    ) -> None:
        if (new_height > 0) != (new_width > 0):
            raise ConfigError(
                f"{source}: new_height and new_width must be given together, got {new_height} and {new_width}"
            )
        self.name = source
        self._lines = read_list(source)
        self._root = root_folder
        ways = {
            "new_height with new_width": new_height,
            "short_side": short_side,
            "min_height or min_width": min_height or min_width,
        }
        given = [way for way, size in ways.items() if size]
        if len(given) > 1:
            raise ConfigError(
                f"{source}: at most one of {', '.join(ways)} must be given, got {' and '.join(given)}"
            )
        self._size = (new_height, new_width)
        self._short_side = short_side
        self._least = (min_height, min_width)
        self._colour: Colour = "colour" if is_color else "grey"

    def __len__(self) -> int:
        return len(self._lines)

    def read(self, index: int) -> Record:
        _, label = self._lines[index]
        path = self.where(index)
        pixels = decode_image(read_bytes(path, f"{self.name}:{index + 1}"), self._colour, path)
        if self._size != (0, 0):
            pixels = resize_image(pixels, *self._size)
        elif self._short_side:
            size = short_side_size(pixels.shape[1], pixels.shape[2], self._short_side)
            pixels = resize_image(pixels, *size)
        elif self._least != (0, 0):
            pixels = resize_image(pixels, *enlarged_size(pixels.shape[1], pixels.shape[2], *self._least))
        return Record(path, (float(label),), pixels)

    def where(self, index: int) -> str:
        return self._root + self._lines[index][0]  # Caffe joins them as text: root_folder ends in a slash

    def close(self) -> None:
        """Nothing is held."""


def enlarged_size(height: int, width: int, min_height: int, min_width: int) -> tuple[int, int]:
    """(height, width) of an image of the same form that is at least so high and wide, if it was not."""
    scale = max(1.0, min_height / height, min_width / width)
    return max(min_height, round(height * scale)), max(min_width, round(width * scale))


def read_list(source: str) -> list[tuple[str, int]]:
    """The lines of a list file: a path, which may contain spaces, then a space and an integer label."""
    try:
        with open(source, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(
            f"{source}: must be a readable list of `path label` lines, got {error.strerror} "
            f"(seen from {os.getcwd()})"
        ) from error
    while lines and not lines[-1].strip():
        lines.pop()
    entries = []
    for number, line in enumerate(lines, 1):
        path, _, label = line.rstrip().rpartition(" ")
        if not path or not label.lstrip("-").isdigit():
            rule = "line must be a path, a space and an integer label"
            raise DataError(f'{source}:{number}: {rule}, got "{line}"')
        entries.append((path, int(label)))
    if not entries:
        raise DataError(f"{source}: must list at least one image, got an empty file")
    return entries


def read_bytes(path: str, where: str) -> bytes:
    """A whole image file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise DataError(
            f"{where}: image must be readable, got {error.strerror} for {path}; check root_folder"
        ) from error
