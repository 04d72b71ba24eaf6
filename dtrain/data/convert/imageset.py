"""A list of images to a database, with the flags of Caffe's convert_imageset."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from dtrain.data.convert.leveldb_writer import write_leveldb
from dtrain.data.convert.lmdb_writer import Progress, write_lmdb
from dtrain.data.convert.order import shuffled_order
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.data.decode import Colour, decode_image, encode_pixels_as, resize_image
from dtrain.data.image_list import read_bytes, read_list
from dtrain.errors import ConfigError, DataError, unknown_name


@final
@dataclass(frozen=True, kw_only=True)
class ImagesetFlags:
    """What convert_imageset is told; the names are its flags."""

    gray: bool = False
    shuffle: bool = False
    resize_width: int = 0
    resize_height: int = 0
    check_size: bool = False
    """All images must have the size of the first."""
    encoded: bool = False
    """Store encoded images; a file that needs no resizing and is of the right type is stored as it is."""
    encode_type: str = ""
    """The encoding, such as png or jpg; empty keeps each file's own. Setting it implies encoded."""
    seed: int = 1
    """Of the shuffle."""


def convert_imageset(
    root_folder: str,
    list_file: str,
    out: str,
    flags: ImagesetFlags | None = None,
    *,
    backend: str = "lmdb",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write the database `out` with keys "%08d_path"; returns the number of records.

    Unlike Caffe's tool, which leaves out an image that it cannot read, this one stops and names it.
    """
    flags = flags or ImagesetFlags()
    writers = {"lmdb": write_lmdb, "leveldb": write_leveldb}
    if backend.lower() not in writers:
        raise ConfigError(f"imageset: {unknown_name('backend', backend, writers)}")
    if (flags.resize_width > 0) != (flags.resize_height > 0):
        raise ConfigError(
            "imageset: resize_width and resize_height must be given together, "
            f"got {flags.resize_width} and {flags.resize_height}"
        )
    records = _records(root_folder, list_file, flags)
    return writers[backend.lower()](out, records, overwrite=overwrite, progress=progress)


def _records(root_folder: str, list_file: str, flags: ImagesetFlags) -> Iterator[tuple[bytes, bytes]]:
    entries = read_list(list_file)
    order = shuffled_order(len(entries), flags.seed) if flags.shuffle else range(len(entries))
    colour: Colour = "grey" if flags.gray else "colour"
    size: tuple[int, ...] = ()
    for number, index in enumerate(order):
        name, label = entries[index]
        path = root_folder + name  # joined as text, as Caffe does: root_folder ends in a slash
        content = read_bytes(path, f"{list_file}:{index + 1}")
        key = b"%08d_" % number + os.fsencode(name)
        pixels = decode_image(content, colour, path)
        if flags.resize_width:
            pixels = resize_image(pixels, flags.resize_height, flags.resize_width)
        size = size or pixels.shape
        if flags.check_size and pixels.shape != size:
            raise DataError(f"{path}: image must have the shape of the first, {size}, got {pixels.shape}")
        if not flags.encoded and not flags.encode_type:
            yield key, encode_pixels(pixels, label)
        elif not flags.resize_width and not flags.gray and _is_type(name, flags.encode_type):
            yield key, encode_image(content, label)
        else:
            suffix = flags.encode_type or os.path.splitext(name)[1].lstrip(".")
            yield key, encode_image(encode_pixels_as(suffix, pixels, path), label)


def _is_type(name: str, encode_type: str) -> bool:
    suffix = os.path.splitext(name)[1].lower().lstrip(".")
    return not encode_type or suffix == encode_type or {suffix, encode_type} == {"jpg", "jpeg"}
