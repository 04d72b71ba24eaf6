"""What a path given to a conversion is: a database, a folder, a tar, a list, idx files, CIFAR batches."""

from __future__ import annotations

import os

import numpy as np

from dtrain.data.backends import backend_of, open_reader, recognised
from dtrain.data.convert.items import (
    IMAGE_SUFFIXES,
    LIST,
    ArrayItems,
    FileItems,
    Items,
    ReaderItems,
    TarItems,
    read_classes,
)
from dtrain.data.convert.mnist import read_idx
from dtrain.data.hdf5_reader import holds_hdf5
from dtrain.data.image_list import read_list
from dtrain.data.listing import names_in
from dtrain.errors import ConfigError, DataError

_CIFAR_IMAGE_BYTES = 3 * 32 * 32
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")  # TarItems says what to do with compressed ones


def open_items(source: str, *, backend: str = "", list_file: str = "", classes_file: str = "") -> Items:
    """The images of a source, told apart by its name and by what lies there.

    backend: what a database is, if it cannot be seen. list_file: `path label` lines, for the images of a
    folder or tar. classes_file: class names in the order of their labels.
    """
    classes = read_classes(classes_file) if classes_file else None
    if list_file and classes_file:
        raise ConfigError("convert: at most one of a list and classes must be given, got both")
    items = _open(source, backend, list_file, classes)
    takes_labels = os.path.isdir(source) if isinstance(items, FileItems) else isinstance(items, TarItems)
    if (list_file or classes_file) and not takes_labels:
        items.close()
        raise ConfigError(
            f"{source}: --list and --classes must be absent where records have labels of their own, got "
            f"{list_file or classes_file}"
        )
    return items


def _open(source: str, backend: str, list_file: str, classes: list[str] | None) -> Items:
    if backend:
        return ReaderItems(open_reader(source, backend))
    if "://" not in source and not os.path.exists(source):
        if any(c in source for c in "*?[,"):
            return ReaderItems(open_reader(source, "ARROW"))
        raise DataError(f"{source}: must exist, got no such path (seen from {os.getcwd()})")
    if source.endswith(_TARS):
        return TarItems(source, classes, dict(read_list(list_file)) if list_file else None)
    if holds_hdf5(source):
        return ReaderItems(open_reader(source, "HDF5"))
    if source.endswith((".txt", ".lst")):
        return FileItems.of_list(source, "")
    if "-idx3-" in os.path.basename(source) or ".idx3-" in os.path.basename(source):
        labels = source.replace("images", "labels").replace("idx3", "idx1")
        return _of_arrays(source, read_idx(source, 3)[:, None], read_idx(labels, 1))
    if source.endswith(".bin"):
        return _cifar(source)
    if os.path.isdir(source) and not recognised(source):
        if list_file:
            return FileItems.of_list(list_file, source.rstrip("/") + "/")
        own_list = os.path.join(source, LIST)
        if classes is None and os.path.isfile(own_list) and _has_loose_images(source):
            return FileItems.of_list(own_list, source.rstrip("/") + "/")
        return FileItems.of_folder(source, classes)
    return ReaderItems(open_reader(source, backend_of(source)))


def _has_loose_images(folder: str) -> bool:
    """Whether images lie in no folder of a class, as `dtrain convert records --to images` writes them."""
    return any(name.lower().endswith(IMAGE_SUFFIXES) for name in names_in(folder))


def _of_arrays(source: str, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], labels: object) -> Items:
    numbers = np.asarray(labels, np.int64)
    if len(pixels) != len(numbers):
        raise DataError(
            f"{source}: images and labels must number the same, got {len(pixels)}, {len(numbers)}"
        )
    return ArrayItems(source, pixels, numbers)


def _cifar(source: str) -> Items:
    """A binary batch of CIFAR-10 (one label byte) or CIFAR-100 (coarse and fine label: the fine counts)."""
    try:
        with open(source, "rb") as file:
            content = np.frombuffer(file.read(), np.uint8)
    except OSError as error:
        raise DataError(f"{source}: must be readable, got {error.strerror}") from error
    for label_bytes in (1, 2):
        row_bytes = label_bytes + _CIFAR_IMAGE_BYTES
        if content.size and content.size % row_bytes == 0:
            rows = content.reshape(-1, row_bytes)
            return _of_arrays(source, rows[:, label_bytes:].reshape(-1, 3, 32, 32), rows[:, label_bytes - 1])
    raise DataError(
        f"{source}: length must be a multiple of {1 + _CIFAR_IMAGE_BYTES} (CIFAR-10) or "
        f"{2 + _CIFAR_IMAGE_BYTES} (CIFAR-100), got {content.size}"
    )
