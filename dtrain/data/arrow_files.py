"""The Arrow and Parquet files that a source names, and the chunks of rows in them that are read at once."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, final

import pyarrow as pa
import pyarrow.fs as fs
import pyarrow.parquet as pq

from dtrain.data.file_length import FileLength
from dtrain.data.listing import ARROW_SUFFIXES
from dtrain.errors import DataError

_MAGIC = {b"PAR1": "a Parquet file", b"ARRO": "an Arrow file"}  # the first four bytes
_DENIED = os.strerror(errno.EACCES)  # what Arrow wraps in its own words
_WILD = "*?["


@final
class Chunk(NamedTuple):
    """A record batch of an IPC file or a row group of a Parquet file."""

    path: str
    first_row: int
    """In the file."""
    num_rows: int
    load: Callable[[], Any]
    """Its columns image and label as a record batch."""
    mapped: FileLength | None
    """Loading reads nothing: the batch lies in the memory of this file; None where it is read."""


@final
class _File(NamedTuple):
    filesystem: Any
    path: str
    scheme: str = ""
    """Of a remote file, such as s3://."""

    @property
    def name(self) -> str:
        """As errors name it."""
        return self.scheme + self.path

    @property
    def is_local(self) -> bool:
        return str(self.filesystem.type_name) == "local"

    def open(self) -> Any:
        return pa.memory_map(self.path) if self.is_local else self.filesystem.open_input_file(self.path)


def chunks_of(source: str) -> list[Chunk]:
    """Every chunk that has rows, in the order of the files' names; only the files' indices are read."""
    chunks: list[Chunk] = []
    for file in _find(source):
        start = b""
        try:
            with file.open() as opened:
                start = opened.read(4)
            chunks += _parquet_chunks(file) if start == b"PAR1" else _ipc_chunks(file, source)
        except PermissionError as error:
            raise DataError(f"{file.name}: must be readable, got {_DENIED}") from error
        except (pa.ArrowException, OSError, ValueError) as error:
            kind = _MAGIC.get(start)
            hint = f"; it begins as {kind}: if it was cut, copy or convert it again" if kind else ""
            raise DataError(
                f"{file.name}: must be an Arrow IPC file or a Parquet file, got {error}{hint}"
            ) from error
    if not chunks:
        raise DataError(f"{without_secret(source)}: must hold at least one row, got none")
    return chunks


def _parquet_chunks(file: _File) -> Iterator[Chunk]:
    with file.open() as opened:
        metadata = pq.ParquetFile(opened).metadata
        columns = _columns(metadata.schema.to_arrow_schema(), file.name)
    first = 0
    for group in range(metadata.num_row_groups):
        num = metadata.row_group(group).num_rows

        if num:
            yield Chunk(file.name, first, num, partial(_read_group, file, metadata, group, columns), None)
        first += num


def _read_group(file: _File, metadata: Any, group: int, columns: list[str]) -> Any:
    with file.open() as opened:
        table = pq.ParquetFile(opened, metadata=metadata).read_row_group(group, columns=columns)
    return table.combine_chunks().to_batches()[0]


def _ipc_chunks(file: _File, source: str) -> Iterator[Chunk]:
    mapped = FileLength(without_secret(source), file.path) if file.is_local else None
    opened = file.open()  # a mapped batch keeps the memory alive, not the descriptor
    reader = pa.ipc.open_file(opened)
    columns = _columns(reader.schema, file.name)
    if reader.num_record_batches == 0 or not (mapped and _lies_in(reader.get_batch(0), opened)):
        mapped = None
    if mapped is None:  # compressed or remote: labels alone tell how many rows there are
        only = pa.ipc.IpcReadOptions(included_fields=[reader.schema.get_field_index("label")])
        reader = pa.ipc.open_file(opened, options=only)
    first = 0
    for number in range(reader.num_record_batches):
        batch = reader.get_batch(number)
        load = partial(batch.select, columns) if mapped else partial(_read_batch, file, number, columns)
        if batch.num_rows:
            yield Chunk(file.name, first, batch.num_rows, load, mapped)
        first += batch.num_rows
    opened.close()


def _read_batch(file: _File, number: int, columns: list[str]) -> Any:
    with file.open() as opened:
        return pa.ipc.open_file(opened).get_batch(number).select(columns)


def _lies_in(batch: Any, mapped: Any) -> bool:
    """Whether the batch is a view of the mapped file, so that its columns are not compressed."""
    mapped.seek(0)
    whole = mapped.read_buffer()
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer and buffer.size]
    return all(whole.address <= buffer.address < whole.address + whole.size for buffer in buffers)


def _columns(schema: Any, path: str) -> list[str]:
    """The columns to read. Raises unless they are there, of types that can be read."""
    for name in ("image", "label"):
        if name not in schema.names:
            raise DataError(f"{path}: columns must include image and label, got {', '.join(schema.names)}")
    image, label = schema.field("image").type, schema.field("label").type
    tensor = isinstance(image, pa.FixedShapeTensorType) and len(image.shape) == 3
    inner = image
    if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0:
        inner = image.field("bytes").type
    encoded = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    if not encoded and not (tensor and image.value_type in (pa.uint8(), pa.float32())):
        raise DataError(
            f"{path}: column image must be binary, a struct with binary `bytes`, or a (C, H, W) tensor of "
            f"uint8 or float32, got {image}"
        )
    lists = pa.types.is_list(label) or pa.types.is_large_list(label) or pa.types.is_fixed_size_list(label)
    number = label.value_type if lists else label
    if not (pa.types.is_integer(number) or pa.types.is_floating(number)):
        raise DataError(f"{path}: column label must hold numbers or lists of them, got {label}")
    return ["image", "label"]


def _find(source: str) -> list[_File]:
    """Files of a path, a folder, a pattern, a URI of any of these, or several of them between commas."""
    if "," in source and not os.path.exists(source):
        return [file for part in source.split(",") for file in _find(part.strip())]
    if "://" in source:
        return _find_at(source)
    local = fs.LocalFileSystem()
    if any(c in source for c in _WILD) and not os.path.exists(source):
        paths = sorted(path for path in glob.glob(source, recursive=True) if os.path.isfile(path))
        if not paths:
            raise DataError(f"{source}: must match at least one file, got none (seen from {os.getcwd()})")
        return [_File(local, path) for path in paths]
    if not os.path.exists(source):
        raise DataError(
            f"{source}: must be an Arrow or Parquet file, or a folder of them, got no such path "
            f"(seen from {os.getcwd()})"
        )
    return _find_in(local, source, source)


def _find_at(uri: str) -> list[_File]:
    """Files of a URI; what follows a `?` with a `=` behind it are options of its filesystem."""
    place, mark, options = uri.partition("?")
    if "=" not in options:
        place, mark, options = uri, "", ""
    bare = place[: min((place.find(c) for c in _WILD if c in place), default=len(place))]
    try:
        filesystem, path = fs.FileSystem.from_uri(bare + mark + options)
        scheme = "" if filesystem.type_name == "local" else place.partition("://")[0] + "://"
        return _find_in(
            filesystem, path.rstrip("/") + place[len(bare.rstrip("/")) :], without_secret(uri), scheme
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{without_secret(uri)}: must be a URI that pyarrow.fs reads, got {error}; check that the "
            "store can be reached from this machine, and its options"
        ) from error


def without_secret(source: str) -> str:
    """The source as it may be shown: a URI may hold a key and its secret before an @."""
    scheme, mark, rest = source.partition("://")
    authority, slash, path = rest.partition("/")
    secret, at, host = authority.rpartition("@")
    return f"{scheme}{mark}***@{host}{slash}{path}" if secret and at else source


def _find_in(filesystem: Any, path: str, source: str, scheme: str = "") -> list[_File]:
    is_pattern = any(c in path for c in _WILD)
    if not is_pattern:
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.File:
            return [_File(filesystem, path, scheme)]
        if info.type != fs.FileType.Directory:
            raise DataError(f"{source}: must be an Arrow or Parquet file, or a folder, got no such path")
    folder = path[: min(path.find(c) for c in _WILD if c in path)].rpartition("/")[0] if is_pattern else path
    try:
        entries = filesystem.get_file_info(fs.FileSelector(folder, recursive=is_pattern))
    except PermissionError as error:
        raise DataError(f"{source}: folder must be readable, got {_DENIED}") from error
    names = sorted(info.path for info in entries if info.type == fs.FileType.File)
    if is_pattern:
        found = [name for name in names if fnmatch.fnmatch(name, path)]
    else:
        found = [name for name in names if name.endswith(ARROW_SUFFIXES)]
    if not found:
        raise DataError(f"{source}: must hold .arrow, .feather or .parquet files, got none")
    return [_File(filesystem, name, scheme) for name in found]
