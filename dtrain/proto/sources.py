"""Where the elements of a message stand in the file that they were read from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, final

Path: TypeAlias = tuple[str | int, ...]


@final
class SourceMap:
    """Lines of a message's elements, each known by its path, e.g. ("layer", 3, "pooling_param", "pad")."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.old_spellings: list[str] = []  # what the parser itself brought up to date
        self._lines: dict[Path, int] = {}

    def add(self, path: Path, line: int) -> None:
        """Note the first line of an element; a message given in parts keeps its first."""
        self._lines.setdefault(path, line)

    def line(self, path: Sequence[str | int]) -> int:
        """Line of the element, or of the nearest enclosing one that is known; 0 if none is."""
        known = tuple(path)
        while known:
            line = self._lines.get(known)
            if line is not None:
                return line
            known = known[:-1]
        return 0

    def where(self, path: Sequence[str | int] = ()) -> str:
        """`file:line` of the element, or of the nearest enclosing one that is known."""
        line = self.line(path)
        file = self.file or "<text>"
        return f"{file}:{line}" if line else file

    def below(self, prefix: Sequence[str | int]) -> SourceMap:
        """The lines of the element at `prefix`, by their paths within it."""
        inner = SourceMap(self.file)
        depth = len(prefix)
        for path, line in self._lines.items():
            if path[:depth] == tuple(prefix):
                inner.add(path[depth:], line)
        return inner

    def move(self, moves: Mapping[Path, Path | None]) -> None:
        """Rename path prefixes, all at once; None drops what is below. For upgrades that move layers."""
        moved: dict[Path, int] = {}
        for path, line in self._lines.items():
            for stop in range(len(path), 0, -1):
                if path[:stop] in moves:
                    prefix = moves[path[:stop]]
                    if prefix is not None:
                        moved.setdefault(prefix + path[stop:], line)
                    break
            else:
                moved.setdefault(path, line)
        self._lines = moved
