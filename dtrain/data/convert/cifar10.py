"""CIFAR-10 to Caffe's cifar10_train_lmdb, cifar10_test_lmdb and mean.binaryproto.

Takes the binary batches (a folder or tar), or images named SET/CLASS/NAME.jpg or .png in folders or tars.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from dtrain.data.convert.lmdb_writer import Progress, write_lmdb
from dtrain.data.convert.mean import compute_mean
from dtrain.data.convert.order import shuffled_order
from dtrain.data.convert.whole_folder import refuse_existing
from dtrain.data.datum import encode_pixels
from dtrain.data.decode import decode_image
from dtrain.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
"""In the order of their labels."""

_SIDE = 32
_ROW_BYTES = 1 + 3 * _SIDE * _SIDE
_IMAGES = (".jpg", ".jpeg", ".png")

Files = dict[str, Callable[[], bytes]]
"""How to read each file, by a path that starts with ./ ."""


def convert_cifar10(
    source: str,
    out: str,
    *,
    mean: bool = True,
    seed: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write OUT/cifar10_train_lmdb and OUT/cifar10_test_lmdb, and the training images' OUT/mean.binaryproto.

    Binary batches keep their order, with Caffe's keys "%05d". Images come sorted by class, so each set is
    put in one fixed shuffled order, a function of seed and of the set's size, over the sorted names. Pixels
    are stored raw: three planes of 32 x 32; the binary batches' planes stay red, green, blue, as Caffe's
    example leaves them, and decoded images are blue, green, red. Returns the number of records by path.
    """
    paths = {name: os.path.join(out, f"cifar10_{name}_lmdb") for name in ("train", "test")}
    mean_path = os.path.join(out, "mean.binaryproto")
    for path in (*paths.values(), *((mean_path,) if mean else ())):
        refuse_existing(path, overwrite)
    files = _files(source)
    written = {}
    binary = {name: content for name, content in files.items() if name.endswith(".bin")}
    for name, path in paths.items():
        records = _from_batches(binary, name, source) if binary else _from_images(files, name, seed, source)
        written[path] = write_lmdb(path, records, overwrite=overwrite, progress=progress)
    if mean:
        compute_mean(paths["train"], mean_path, progress=progress)
    return written


def _from_batches(files: Files, name: str, source: str) -> Iterator[tuple[bytes, bytes]]:
    wanted = [f"data_batch_{n}.bin" for n in range(1, 6)] if name == "train" else ["test_batch.bin"]
    by_name = {os.path.basename(path): read for path, read in files.items()}
    number = 0
    for file in wanted:
        if file not in by_name:
            raise DataError(f"{source}: must hold {', '.join(wanted)}, got no {file}")
        content = by_name[file]()
        if not content or len(content) % _ROW_BYTES:
            raise DataError(f"{source}/{file}: length must be a multiple of {_ROW_BYTES}, got {len(content)}")
        for row in np.frombuffer(content, np.uint8).reshape(-1, _ROW_BYTES):
            yield b"%05d" % number, encode_pixels(row[1:].reshape(3, _SIDE, _SIDE), int(row[0]))
            number += 1


def _from_images(files: Files, name: str, seed: int, source: str) -> Iterator[tuple[bytes, bytes]]:
    samples = sorted(
        path for path in files if path.lower().endswith(_IMAGES) and path.split("/")[-3:-2] == [name]
    )
    if not samples:
        raise DataError(
            f"{source}: must hold data_batch_1.bin ... or images {name}/CLASS/NAME.jpg or .png, got neither"
        )
    for number, index in enumerate(shuffled_order(len(samples), seed)):
        path = samples[index]
        label = path.split("/")[-2]
        if label not in CLASSES:
            raise DataError(f"{source}/{path}: folder must be one of {', '.join(CLASSES)}, got {label}")
        pixels = decode_image(files[path](), "colour", f"{source}/{path}")
        if pixels.shape != (3, _SIDE, _SIDE):
            raise DataError(f"{source}/{path}: image must be {_SIDE} x {_SIDE}, got {pixels.shape[1:]}")
        yield b"%08d" % number, encode_pixels(pixels, CLASSES.index(label))


def _files(source: str) -> Files:
    """Every file in a folder (and in the tars that lie in it) or in a tar, by path, with how to read it."""
    if os.path.isfile(source):
        return _tar_files(source)
    if not os.path.isdir(source):
        raise DataError(f"{source}: must be a folder or a tar file, got no such path")
    found: Files = {}
    for folder, _, names in os.walk(source):
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith((".tar", ".tar.gz", ".tgz")):
                found |= _tar_files(path)
            else:
                found["./" + os.path.relpath(path, source)] = partial(_read, path)
    return found


def _tar_files(path: str) -> Files:
    contents = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member) if member.isfile() else None
                if file is not None:
                    contents["./" + member.name] = file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path}: must be a readable tar file, got {error}") from error
    return {name: io.BytesIO(content).getvalue for name, content in contents.items()}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
