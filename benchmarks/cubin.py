"""What the compiler wrote into a cubin about its kernels: registers, and bytes of stack (arrays, spills).

Source: ELF-64, and the entries of section .nv.info as cuobjdump --dump-elf shows them: a form, an attribute,
a size, then a symbol's number and a value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

ENTRY_WITH_SIZE = 0x04  # other forms hold their value in the size's two bytes
FRAME_SIZE, REGISTERS = 0x11, 0x2F
SYMBOL_BYTES = 24


class Usage(NamedTuple):
    """Of one kernel."""

    registers: int
    stack_bytes: int


class Section(NamedTuple):
    """A part of the file."""

    name: str
    content: bytes


def sections(cubin: bytes) -> list[Section]:
    """In the order of the file."""
    (offset,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", cubin, offset + i * size) for i in range(count)]
    _, _, _, _, start, length = headers[names]
    table = cubin[start : start + length]
    return [
        Section(text_at(table, name), cubin[begin : begin + extent])
        for name, _, _, _, begin, extent in headers
    ]


def text_at(table: bytes, start: int) -> str:
    """The string that begins there in a table of strings."""
    return table[start : table.index(b"\0", start)].decode()


def entries(info: bytes) -> Iterator[tuple[int, int, int]]:
    """(attribute, symbol's number, value) of .nv.info."""
    at = 0
    while at + 4 <= len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == ENTRY_WITH_SIZE:
            if size == 8:
                yield attribute, *struct.unpack_from("<II", info, at)
            at += size


def usage(cubin: bytes) -> dict[str, Usage]:
    """Of every kernel by name."""
    found = {section.name: section.content for section in sections(cubin)}
    symbols, names = found[".symtab"], found[".strtab"]
    told: dict[int, dict[int, int]] = {}
    for attribute, symbol, value in entries(found.get(".nv.info", b"")):
        told.setdefault(symbol, {})[attribute] = value
    used = {}
    for symbol, values in told.items():
        if REGISTERS in values:
            (name,) = struct.unpack_from("<I", symbols, symbol * SYMBOL_BYTES)
            used[text_at(names, name)] = Usage(values[REGISTERS], values.get(FRAME_SIZE, 0))
    return used
