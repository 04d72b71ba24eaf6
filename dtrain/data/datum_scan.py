"""Find the fields of many serialised Datum messages at once, without building messages or copying pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from dtrain.data.compiled import carray, compiled, pointer

CHANNELS, HEIGHT, WIDTH, LABEL, ENCODED, DATA_START, DATA_BYTES, FLOATS, OK = range(9)
"""Columns of the table that `scan` fills, one row a message."""
COLUMNS = 9

_COPIED_BYTES = 1 << 19

Table = npt.NDArray[np.int64]


@final
class Messages(NamedTuple):
    """Serialised messages where they lie in memory."""

    addresses: Table
    lengths: Table
    alive: object
    """What must be kept meanwhile."""

    def bytes_of(self, n: int) -> npt.NDArray[np.uint8]:
        """The n-th message, without a copy."""
        found: npt.NDArray[np.uint8] = view(self.addresses[n], self.lengths[n])
        return found


def located(values: Sequence[memoryview]) -> Messages:
    """Where each buffer lies.

    Asking NumPy for an address takes more than a microsecond: small buffers are sooner copied end to end.
    """
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    if int(lengths.sum()) <= _COPIED_BYTES:
        joined = np.frombuffer(b"".join(values) or b"\0", np.uint8)
        ends: Table = lengths.cumsum()
        return Messages(joined.ctypes.data + ends - lengths, lengths, joined)
    return Messages(addresses_of(values), lengths, values)


def addresses_of(values: Sequence[memoryview]) -> Table:
    """Where each buffer starts in its own memory; 1 for an empty one."""
    views = (np.frombuffer(value, np.uint8) if len(value) else None for value in values)
    starts = (1 if array is None else array.__array_interface__["data"][0] for array in views)
    return np.fromiter(starts, np.int64, len(values))


@compiled
def view(address: int, length: int) -> npt.NDArray[np.uint8]:
    """The bytes at an address; what owns them must outlive the array."""
    found: npt.NDArray[np.uint8] = carray(pointer(address), length, np.uint8)
    return found


@compiled
def scan(addresses: Table, lengths: Table, table: Table) -> None:
    """Fill table (N, COLUMNS); OK is 0 in the row of a message that cannot be read."""
    for row in range(addresses.shape[0]):
        scan_one(addresses[row], lengths[row], table[row])


@compiled
def scan_one(address: int, length: int, fields: Table) -> None:
    """Fill one row of `scan`'s table.

    Field numbers are those of message Datum. As in protobuf, the last occurrence of a field counts and
    unknown fields are skipped.
    """
    buffer = carray(pointer(address), length, np.uint8)
    fields[:] = 0
    at = 0
    good = True
    while good and at < length:
        tag, at = varint(buffer, at)
        number, wire = tag >> 3, tag & 7
        if at < 0 or number <= 0:
            good = False
        elif wire == 0:
            value, at = varint(buffer, at)
            good = at >= 0
            if number == 1:
                fields[CHANNELS] = np.int32(value)
            elif number == 2:
                fields[HEIGHT] = np.int32(value)
            elif number == 3:
                fields[WIDTH] = np.int32(value)
            elif number == 5:
                fields[LABEL] = np.int32(value)
            elif number == 7:
                fields[ENCODED] = 1 if value != 0 else 0
        elif wire == 2:
            size, at = varint(buffer, at)
            if at < 0 or size < 0 or size > length - at:
                good = False
            else:
                if number == 4:
                    fields[DATA_START] = at
                    fields[DATA_BYTES] = size
                elif number == 6:
                    fields[FLOATS] += size // 4
                at += size
        elif wire == 5 or wire == 1:
            if wire == 5 and number == 6:
                fields[FLOATS] += 1
            at += 4 if wire == 5 else 8
            good = at <= length
        else:
            good = False
    fields[OK] = 1 if good else 0


@compiled
def varint(buffer: npt.NDArray[np.uint8], at: int) -> tuple[int, int]:
    """The number that starts at a byte and where it ends; -1 as the end of one that the buffer cuts short."""
    value, shift = 0, 0
    while at < buffer.shape[0] and shift < 64:
        byte = int(buffer[at])
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    return 0, -1
