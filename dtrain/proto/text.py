"""Prototxt: text to message and back, every fault with file, line, column and the offending name.

Takes what Caffe's own parser takes. Beyond that it takes two old spellings within `layer { }`, because
people mix them in: `type: CONVOLUTION` for `type: "Convolution"`, and `param: "w"` for `param { name: "w" }`.
"""

from __future__ import annotations

import os
from pathlib import Path as FilePath
from typing import final

from google.protobuf import text_format
from google.protobuf.message import Message

from dtrain.errors import ConfigError, PrototxtError, unknown_name
from dtrain.proto.layer_types import V1_TYPES
from dtrain.proto.lexer import Lexer, Token, shorten, unquote
from dtrain.proto.scalars import scalar
from dtrain.proto.schema import Field, Type, fields
from dtrain.proto.sources import Path, SourceMap

_MAX_DEPTH = 50  # far beyond the schema's own depth; keeps hostile text off Python's stack
_CLOSERS = {"{": "}", "<": ">"}
_REMEDIES = {
    ("LayerParameter", "blobs_lr"): "write param { lr_mult: ... } in a `layer` block",
    ("LayerParameter", "weight_decay"): "write param { decay_mult: ... } in a `layer` block",
    ("LayerParameter", "layer"): "close the block before, or write `layers` around a `layer` of 2013",
    ("V1LayerParameter", "transformation_param"): "write transform_param",
}


def parse(text: str, message: Message, file: str = "") -> SourceMap:
    """Add the text's fields to `message`. Raises PrototxtError; what was read by then stays in `message`."""
    sources = SourceMap(file)
    _Parser(text, sources).block(message, (), None, depth=0)
    return sources


def read(path: str | os.PathLike[str], message: Message) -> SourceMap:
    """Parse a file. Comments may hold bytes that are not UTF-8, as files in other encodings do."""
    file = os.fspath(path)
    try:
        data = FilePath(file).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file}: must be a readable prototxt file, got {error.strerror or error}"
        ) from error
    if b"\0" in data:
        raise PrototxtError(
            f"{file}: must be prototxt, got binary data; weights and snapshots are given by other options",
            file=file,
        )
    return parse(data.decode("utf-8", "surrogateescape"), message, file)


def format(message: Message) -> str:
    """The message as prototxt; parsing it gives an equal message."""
    return text_format.MessageToString(message, as_utf8=True)


@final
class _Parser:
    def __init__(self, text: str, sources: SourceMap) -> None:
        self._sources = sources
        self._lexer = Lexer(text, sources.file)
        self._outer: list[tuple[str, Message]] = []  # the blocks around the current token, for error texts

    def block(self, message: Message, path: Path, opening: Token | None, depth: int) -> None:
        """Read fields up to the end of the block, or of the text if there is no opening, and take it."""
        lexer = self._lexer
        known = fields(message.DESCRIPTOR)
        first_lines: dict[str, int] = {}
        while True:
            token = lexer.token
            if token.kind == "end" and opening is None:
                break
            if opening is not None and token.text == _CLOSERS[opening.text]:
                break
            if token.kind == "end" and opening is not None:
                raise self._error("a block must be closed, got the end of the text", opening)
            if token.kind != "name":
                raise self._error(f"a field name must come here, got {self._shown(token)}", token)
            lexer.take()
            field = known.get(token.text)
            if field is None:
                raise self._unknown_field(message, token)
            line = lexer.line(token)
            if not field.repeated and field.name in first_lines:
                first = first_lines[field.name]
                raise self._error(f"{field.name} must be given once, got it again after line {first}", token)
            first_lines[field.name] = line
            self._field(message, field, path, depth)
            if lexer.token.kind == "symbol" and lexer.token.text in ",;":
                lexer.take()
        for field in known.values():
            if field.required and not message.HasField(field.name):
                raise self._error(f"{field.name} must be given, got none", opening)
        lexer.take()

    def _field(self, message: Message, field: Field, path: Path, depth: int) -> None:
        lexer = self._lexer
        colon = lexer.token.text == ":" and lexer.token.kind == "symbol"
        if colon:
            lexer.take()
        elif not (field.is_message and lexer.token.kind == "symbol" and lexer.token.text in "{<["):
            wanted = '"{" or ":"' if field.is_message else '":"'
            raise self._error(f"{field.name} must be followed by {wanted}, got {self._shown(lexer.token)}")
        if not (lexer.token.kind == "symbol" and lexer.token.text == "["):
            self._value(message, field, path, depth)
            return
        opening = lexer.take()
        if not field.repeated:
            raise self._error(f"{field.name} must be a single value, got a list", opening)
        while not self._take_symbol("]"):
            self._value(message, field, path, depth)
            if not self._take_symbol(",") and lexer.token.text != "]":
                raise self._error(f'"," or "]" must come here, got {self._shown(lexer.token)}')

    def _value(self, message: Message, field: Field, path: Path, depth: int) -> None:
        token = self._lexer.token
        here: Path = (*path, field.name)
        if field.repeated:
            here = (*here, len(getattr(message, field.name)))
        self._sources.add(here, self._lexer.line(token))
        if field.is_message:
            self._block_value(message, field, here, depth)
            return
        value = self._string(field) if token.kind == "string" else self._bare(message, field)
        if field.repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    def _block_value(self, message: Message, field: Field, here: Path, depth: int) -> None:
        lexer = self._lexer
        opening = lexer.token
        if opening.kind == "string" and (message.DESCRIPTOR.name, field.name) == ("LayerParameter", "param"):
            spec = getattr(message, field.name).add()
            spec.name = self._string(fields(spec.DESCRIPTOR)["name"])
            self._note(f'param: "{spec.name}" is read as param {{ name: "{spec.name}" }}', opening)
            return
        if opening.kind != "symbol" or opening.text not in _CLOSERS:
            raise self._error(f"{field.name} must be {field.rule}, got {self._shown(opening)}")
        if depth >= _MAX_DEPTH:
            raise self._error(f"blocks must be at most {_MAX_DEPTH} deep, got a deeper one", opening)
        lexer.take()
        child: Message = getattr(message, field.name)
        if field.repeated:
            child = getattr(message, field.name).add()
        else:
            child.SetInParent()
        self._outer.append((field.name, child))
        self.block(child, here, opening, depth + 1)
        self._outer.pop()

    def _string(self, field: Field) -> str | bytes:
        """One or more quoted strings that stand side by side."""
        first = self._lexer.token
        if field.type not in (Type.TYPE_STRING, Type.TYPE_BYTES):
            remedy = "; write it without quotes" if first.text[1:-1] in field.values else ""
            raise self._error(f"{field.name} must be {field.rule}, got {shorten(first.text)}{remedy}")
        parts: list[bytes] = []
        while self._lexer.token.kind == "string":
            token = self._lexer.take()
            try:
                parts.append(unquote(token.text))
            except ValueError as error:
                raise self._error(f"{field.name}: {error}", token) from None
        data = b"".join(parts)
        if field.type == Type.TYPE_BYTES:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self._error(f"{field.name} must be UTF-8 text, got {shorten(repr(data))}", first) from None

    def _bare(self, message: Message, field: Field) -> int | float | bool | str:
        """A number or a word, either after an optional minus sign."""
        start = self._lexer.token
        negative = self._take_symbol("-")
        token = self._lexer.token
        if token.kind not in ("name", "number"):
            raise self._error(f"{field.name} must be {field.rule}, got {self._shown(token)}")
        self._lexer.take()
        if (message.DESCRIPTOR.name, field.name) == ("LayerParameter", "type") and token.text in V1_TYPES:
            new = V1_TYPES[token.text]
            self._note(f'type: {token.text} is read as type: "{new}"', token)
            return new
        try:
            return scalar(field, token, negative)
        except ValueError as error:
            raise self._error(str(error), start) from None

    def _take_symbol(self, symbol: str) -> bool:
        if self._lexer.token.kind == "symbol" and self._lexer.token.text == symbol:
            self._lexer.take()
            return True
        return False

    def _note(self, change: str, token: Token) -> None:
        self._sources.old_spellings.append(f"line {self._lexer.line(token)}: {change}")

    def _unknown_field(self, message: Message, token: Token) -> PrototxtError:
        name = message.DESCRIPTOR.name
        remedy = _REMEDIES.get((name, token.text))
        if remedy:
            return self._error(f'{name} has no field "{token.text}"; {remedy}', token)
        return self._error(
            unknown_name(f"{name} field", shorten(token.text), fields(message.DESCRIPTOR)), token
        )

    def _error(self, message: str, token: Token | None = None) -> PrototxtError:
        """The error at the token, or at the next one, with the blocks around it."""
        context = " ".join(self._named(name, block) for name, block in self._outer)
        told = f"{context}: {message}" if context else message
        return self._lexer.error(told, self._lexer.token if token is None else token)

    @staticmethod
    def _named(name: str, block: Message) -> str:
        label = getattr(block, "name", "") if "name" in fields(block.DESCRIPTOR) else ""
        return f'{name} "{shorten(label)}"' if label else name

    @staticmethod
    def _shown(token: Token) -> str:
        if token.kind == "end":
            return "the end of the text"
        shown = shorten(token.text)
        return shown if token.kind == "string" else f'"{shown}"'
