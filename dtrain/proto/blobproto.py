"""Arrays in and out of BlobProto, at the speed of memory.

protobuf hands out repeated floats one Python number at a time, which takes seconds for a large net. In the
binary form the same floats are one run of little-endian bytes, so both directions go through that form:
a message is serialised and its run viewed as an array, or a run is written and merged into the message.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtrain.errors import DataError
from dtrain.proto import dtrain_pb2 as pb

Array = NDArray[np.floating[Any]]

_DATA: Final = pb.BlobProto.DATA_FIELD_NUMBER
_DIFF: Final = pb.BlobProto.DIFF_FIELD_NUMBER
_DOUBLE_DATA: Final = pb.BlobProto.DOUBLE_DATA_FIELD_NUMBER
_DOUBLE_DIFF: Final = pb.BlobProto.DOUBLE_DIFF_FIELD_NUMBER
_LENGTH_DELIMITED: Final = 2
_VARINT: Final = 0
_RAW_TYPES: Final = {pb.DOUBLE: "<f8", pb.FLOAT: "<f4", pb.FLOAT16: "<f2"}


def is_legacy(blob: pb.BlobProto) -> bool:
    """Whether the shape is the four numbers of old files, in which missing leading axes are ones."""
    return any(blob.HasField(axis) for axis in ("num", "channels", "height", "width"))


def blob_shape(blob: pb.BlobProto) -> tuple[int, ...]:
    """The shape as stored; four axes if it is a legacy one."""
    if is_legacy(blob):
        return (blob.num, blob.channels, blob.height, blob.width)
    return tuple(blob.shape.dim)


def fits(blob: pb.BlobProto, shape: Sequence[int]) -> bool:
    """Whether the stored shape is `shape`; a legacy one may have ones in front of it.

    Source: Caffe's Blob::ShapeEquals.
    """
    stored = blob_shape(blob)
    wanted = tuple(shape)
    if is_legacy(blob) and len(wanted) <= 4:
        return stored == (1,) * (4 - len(wanted)) + wanted
    return stored == wanted


def blobproto_to_array(blob: pb.BlobProto, *, diff: bool = False, where: str = "blob") -> Array:
    """The values (or the gradient) as a new array of the stored shape: float64 if stored so, else float32.

    Raises DataError, with `where` in front, if number of values and shape disagree.
    """
    shape = blob_shape(blob)
    values = _values(blob, diff, where)
    if any(dim < 0 for dim in shape) or math.prod(shape) != values.size:
        raise DataError(f"{where}: a blob must have {_times(shape)} values, got {values.size}")
    return values.reshape(shape)


def array_to_blobproto(array: Array, diff: Array | None = None) -> pb.BlobProto:
    """The array, and its gradient if given, as a message; float64 stays float64, as in Caffe."""
    blob = pb.BlobProto()
    fill_blobproto(blob, array, diff)
    return blob


def fill_blobproto(blob: pb.BlobProto, array: Array, diff: Array | None = None) -> None:
    """Overwrite `blob` with the array, and its gradient if given."""
    if not np.issubdtype(array.dtype, np.floating):
        raise TypeError(f"a blob must hold floating-point values, got {array.dtype}")
    if diff is not None and diff.shape != array.shape:
        raise ValueError(f"diff must have the shape of data, {array.shape}, got {diff.shape}")
    blob.Clear()
    blob.shape.dim.extend(array.shape)
    _put(blob, array, _DATA, _DOUBLE_DATA)
    if diff is not None:
        _put(blob, diff, _DIFF, _DOUBLE_DIFF)


def _put(blob: pb.BlobProto, array: Array, single: int, double: int) -> None:
    is_double = array.dtype == np.float64
    run = np.ascontiguousarray(array, dtype="<f8" if is_double else "<f4").tobytes()
    tag = (double if is_double else single) << 3 | _LENGTH_DELIMITED
    blob.MergeFromString(b"".join((_varint(tag), _varint(len(run)), run)))


def _values(blob: pb.BlobProto, diff: bool, where: str) -> Array:
    raw = blob.raw_diff if diff else blob.raw_data
    if raw:
        return _raw_values(raw, blob.raw_diff_type if diff else blob.raw_data_type, where)
    single, double = (_DIFF, _DOUBLE_DIFF) if diff else (_DATA, _DOUBLE_DATA)
    has_double = len(blob.double_diff if diff else blob.double_data) > 0
    if not has_double and not len(blob.diff if diff else blob.data):
        return np.zeros(0, np.float32)
    wire = memoryview(blob.SerializeToString())
    for number, run in _runs(wire):
        if number == (double if has_double else single):
            return np.frombuffer(run, "<f8" if has_double else "<f4").astype(
                np.float64 if has_double else np.float32
            )
    raise AssertionError("a field that is set is on the wire")


def _raw_values(raw: bytes, kind: pb.Type, where: str) -> Array:
    """NVCaffe's bytes."""
    if kind not in _RAW_TYPES:
        known = ", ".join(pb.Type.Name(number) for number in _RAW_TYPES)
        raise DataError(f"{where}: raw_data_type must be one of {known}, got {pb.Type.Name(kind)}")
    stored = np.dtype(_RAW_TYPES[kind])
    if len(raw) % stored.itemsize:
        raise DataError(f"{where}: raw_data must be a multiple of {stored.itemsize} bytes, got {len(raw)}")
    return np.frombuffer(raw, stored).astype(np.float64 if stored.itemsize == 8 else np.float32)


def _runs(wire: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Tag number and bytes of each length-delimited field of a well-formed message."""
    position = 0
    while position < len(wire):
        tag, position = _read_varint(wire, position)
        if tag & 7 == _VARINT:
            _, position = _read_varint(wire, position)
        elif tag & 7 == _LENGTH_DELIMITED:
            length, position = _read_varint(wire, position)
            yield tag >> 3, wire[position : position + length]
            position += length
        else:
            position += 8 if tag & 7 == 1 else 4


def _read_varint(wire: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = wire[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _times(shape: tuple[int, ...]) -> str:
    return f"{math.prod(shape)} ({' x '.join(map(str, shape)) or 'scalar'})"
