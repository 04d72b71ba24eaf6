"""The window file of detection training: boxes in images, each with a class and its overlap with an object.

Each image is a block of words: `# index path channels height width num_windows`, then for every window
`class overlap x1 y1 x2 y2`. Source: Caffe's WindowDataLayer.
"""

from __future__ import annotations

import os
from typing import NamedTuple, final

from dtrain.errors import DataError

NEAR = 20  # characters of a wrong place that an error shows


@final
class Window(NamedTuple):
    """A box in an image, both corners inside it."""

    path: str
    label: int
    x1: int
    y1: int
    x2: int
    y2: int


@final
class WindowFile:
    """Windows of objects, whose overlap is at least fg_threshold, and of background, below bg_threshold."""

    def __init__(self, source: str, root_folder: str, fg_threshold: float, bg_threshold: float) -> None:
        self.name = source
        self.foreground: list[Window] = []
        self.background: list[Window] = []
        self.channels = 0
        """Of the images."""
        self._words = _read(source)
        self._next = 0
        while self._next < len(self._words):
            self._read_image(root_folder, fg_threshold, bg_threshold)
        if not self.channels:
            raise DataError(f"{source}: must hold at least one image, got an empty window file")

    def _read_image(self, root_folder: str, fg_threshold: float, bg_threshold: float) -> None:
        if (word := self._word("#")) != "#":
            raise DataError(f'{self.name}: an image must begin with "#", got "{word}" as word {self._next}')
        self._number("image index")
        path = root_folder + self._word("image path")  # joined as text, so root_folder ends in a slash
        channels = self._number("channels")
        if self.channels not in (0, channels):
            raise DataError(
                f"{self.name}: all images must have {self.channels} channels, got {channels} of {path}"
            )
        self.channels = channels
        self._number("height")
        self._number("width")
        for _ in range(self._number("number of windows")):
            label = self._number("class")
            overlap = self._overlap()
            x1, y1, x2, y2 = (self._number(name) for name in ("x1", "y1", "x2", "y2"))
            if overlap >= fg_threshold:
                if label <= 0:
                    raise DataError(
                        f"{self.name}: an object's class must be at least 1, got {label} in {path}"
                    )
                self.foreground.append(Window(path, label, x1, y1, x2, y2))
            elif overlap < bg_threshold:
                self.background.append(Window(path, 0, x1, y1, x2, y2))

    def _word(self, what: str) -> str:
        if self._next == len(self._words):
            raise DataError(f"{self.name}: must go on with {what}, got the end of the file")
        self._next += 1
        return self._words[self._next - 1]

    def _number(self, what: str) -> int:
        word = self._word(what)
        try:
            return int(word)
        except ValueError:
            raise DataError(
                f'{self.name}: {what} must be an integer, got "{word[:NEAR]}" as word {self._next}'
            ) from None

    def _overlap(self) -> float:
        word = self._word("overlap")
        try:
            return float(word)
        except ValueError:
            raise DataError(
                f'{self.name}: overlap must be a number, got "{word[:NEAR]}" as word {self._next}'
            ) from None


def _read(source: str) -> list[str]:
    try:
        with open(source, encoding="utf-8", errors="surrogateescape") as file:
            return file.read().split()
    except OSError as error:
        raise DataError(
            f"{source}: must be a readable window file, got {error.strerror} (seen from {os.getcwd()})"
        ) from error
