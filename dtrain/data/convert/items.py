"""What a conversion reads: images with labels, by number, from databases, folders, lists and tar files."""

from __future__ import annotations

import os
import tarfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import IO, Generic, TypeVar, final

import numpy as np
import numpy.typing as npt

from dtrain.data.image_list import read_bytes, read_list
from dtrain.data.listing import names_in, unlisted
from dtrain.data.reader import Reader
from dtrain.data.record import Pixels, Record
from dtrain.errors import DataError

_Reader = TypeVar("_Reader", bound=Reader)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
LIST = "list.txt"
"""What the list of names and labels is called that a conversion writes beside files."""
_NESTED = 2  # tars in a tar are looked into, as the training images of ILSVRC come


class Items(ABC):
    """Records 0..len-1, each with a name or none; `read` may be called from many threads."""

    source: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Record: ...

    @abstractmethod
    def name_of(self, index: int) -> str:
        """What the file of the image is called; empty for records of a database."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is held; calling it again does nothing."""


class RecordsOfReader(Items, Generic[_Reader]):
    """Records of a database, which have no names."""

    def __init__(self, reader: _Reader) -> None:
        self.source = reader.name
        self.reader = reader

    def __len__(self) -> int:
        return len(self.reader)

    @abstractmethod
    def read(self, index: int) -> Record: ...

    def name_of(self, index: int) -> str:
        return ""

    def close(self) -> None:
        self.reader.close()


@final
class ReaderItems(RecordsOfReader[Reader]):
    """They are as the reader gives them."""

    def read(self, index: int) -> Record:
        return self.reader.read(index)


@final
class FileItems(Items):
    """Encoded images in files: those of a list, or of a folder with a subfolder for each class."""

    def __init__(
        self, source: str, root: str, entries: list[tuple[str, int]], *, is_list: bool = False
    ) -> None:
        """entries: paths after `root`, which is put before them as text, and labels; of a list its lines."""
        self.source = source
        self._is_list = is_list
        self._root = root
        self._entries = entries

    @classmethod
    def of_list(cls, list_file: str, root: str) -> FileItems:
        """The lines `path label` of a file."""
        return cls(list_file, root, read_list(list_file), is_list=True)

    @classmethod
    def of_folder(cls, folder: str, classes: list[str] | None = None) -> FileItems:
        """FOLDER/CLASS/.../NAME.jpg, sorted; labels count the classes given, or found, in their order."""
        inside = names_in(folder)
        found = [name for name in inside if os.path.isdir(os.path.join(folder, name))]
        labels = labels_of(found, classes, folder)
        entries = []
        for name in found:
            for inner, folders, files in os.walk(os.path.join(folder, name), onerror=_raise):
                folders.sort()
                near = os.path.relpath(inner, folder)
                entries += [
                    (os.path.join(near, file), labels[name])
                    for file in sorted(files)
                    if file.lower().endswith(IMAGE_SUFFIXES)
                ]
        if not entries:
            loose = sum(name.lower().endswith(IMAGE_SUFFIXES) for name in inside)
            got = f"{loose} outside any folder of a class; --list tells their labels" if loose else "none"
            raise DataError(f"{folder}: must hold a data set, or images as CLASS/NAME.jpg or .png, got {got}")
        return cls(folder, folder.rstrip("/") + "/", entries)

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> Record:
        name, label = self._entries[index]
        path = self._root + name
        where = f"{self.source}:{index + 1}" if self._is_list else self.source
        return Record(path, (float(label),), encoded=read_bytes(path, where))

    def name_of(self, index: int) -> str:
        return self._entries[index][0]

    def close(self) -> None:
        """Nothing is held."""


@final
class ArrayItems(Items):
    """Pixels (N, C, H, W) and labels (N,) in memory."""

    def __init__(self, source: str, pixels: Pixels, labels: npt.NDArray[np.int64]) -> None:
        self.source = source
        self._pixels = pixels
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> Record:
        return Record(f"{self.source}: {index}", (float(self._labels[index]),), self._pixels[index])

    def name_of(self, index: int) -> str:
        return ""

    def close(self) -> None:
        """Nothing is held."""


@final
@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    num_bytes: int
    label: int


@final
class TarItems(Items):
    """Encoded images in a tar that is not compressed, read where they lie.

    The class of an image is its folder, or the tar inside the tar: n01440764.tar/n01440764_1.JPEG. Images
    without either are looked up in `listed`, from a name to a label.
    """

    def __init__(
        self, path: str, classes: list[str] | None = None, listed: dict[str, int] | None = None
    ) -> None:
        self.source = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY)
            with open(path, "rb") as file:
                members = list(_members(file, 0, "", _NESTED))
        except OSError as error:
            raise DataError(f"{path}: must be readable, got {error.strerror}") from error
        except (tarfile.TarError, EOFError) as error:
            raise DataError(
                f"{path}: must be a tar file that is not compressed, got {error}; gunzip it first"
            ) from error
        images = sorted(member for member in members if member[0].lower().endswith(IMAGE_SUFFIXES))
        if not images:
            raise DataError(f"{path}: must hold images, got {len(members)} other files")
        if listed is None:
            found = sorted({_class_of(name, path) for name, _, _ in images})
            labels = labels_of(found, classes, path)
            self._members = [
                _Member(name, start, size, labels[_class_of(name, path)]) for name, start, size in images
            ]
        else:
            self._members = [
                _Member(name, start, size, _listed(name, listed, path)) for name, start, size in images
            ]

    def __len__(self) -> int:
        return len(self._members)

    def read(self, index: int) -> Record:
        member = self._members[index]
        where = f"{self.source}: {member.name}"
        content = os.pread(self._descriptor, member.num_bytes, member.start)
        if len(content) != member.num_bytes:
            raise DataError(f"{where}: must have {member.num_bytes} bytes, got {len(content)}")
        return Record(where, (float(member.label),), encoded=content)

    def name_of(self, index: int) -> str:
        return self._members[index].name

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _raise(error: OSError) -> None:
    raise unlisted(str(error.filename), error) from error


def _members(file: IO[bytes], offset: int, prefix: str, depth: int) -> list[tuple[str, int, int]]:
    """Name, place in the outermost file and size of every file in a tar that begins at `offset`."""
    found = []
    file.seek(offset)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        inner = [member for member in tar if member.isfile()]
    for member in inner:
        name = prefix + member.name.removeprefix("./")
        if name.endswith(".tar") and depth > 1:
            found += _members(file, member.offset_data, name.removesuffix(".tar") + "/", depth - 1)
        else:
            found.append((name, member.offset_data, member.size))
    return found


def _class_of(name: str, path: str) -> str:
    folder = os.path.basename(os.path.dirname(name))
    if not folder:
        raise DataError(f"{path}: images must lie in a folder or tar of their class, got {name}")
    return folder


def _listed(name: str, listed: dict[str, int], path: str) -> int:
    label = listed.get(name, listed.get(os.path.basename(name)))
    if label is None:
        raise DataError(f"{path}: the list must hold every image, got none of {name}")
    return label


def labels_of(found: list[str], classes: list[str] | None, source: str) -> dict[str, int]:
    """The label of each class: its place among those given, or among those found."""
    known = {name: label for label, name in enumerate(found if classes is None else classes)}
    for name in found:
        if name not in known:
            raise DataError(f"{source}: classes must be those of the list of classes, got {name}")
    return known


def read_classes(path: str) -> list[str]:
    """The first word of every line: class names in the order of their labels, as in synsets.txt."""
    try:
        with open(path, encoding="utf-8") as file:
            words = [line.split()[0] for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: must be a readable list of classes, got {error}") from error
    if len(set(words)) != len(words) or not words:
        raise DataError(f"{path}: classes must be listed once each, got {len(words)} lines")
    return words
