"""Cuts prototxt into tokens.

Source: the token rules of protobuf's text format specification.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple, final

from dtrain.errors import PrototxtError

# Possessive quantifiers (++, *+) keep the time linear in the text, whatever it holds.
_TOKEN = re.compile(
    r"""(?:[ \t\r\n\f\v]++|\#[^\n]*+)*+
    (?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)
     |(?P<number>(?:0[xX][0-9a-fA-F]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)(?![A-Za-z0-9_.]))
     |(?P<string>"(?:[^"\\\n]++|\\[^\n])*+"|'(?:[^'\\\n]++|\\[^\n])*+')
     |(?P<symbol>[{}<>\[\]:;,-])
     |(?P<end>\Z))""",
    re.VERBOSE,
)
_BLANK = re.compile(r"(?:[ \t\r\n\f\v]++|#[^\n]*+)*+")
_LONGEST_SHOWN = 60
_BROKEN_NUMBER = re.compile(r"[0-9.][A-Za-z0-9_.]*")
_ESCAPE = re.compile(
    rb"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL
)
_SIMPLE_ESCAPES = dict(zip(b"abfnrtv\\'\"?", b"\a\b\f\n\r\t\v\\'\"?", strict=True))
_SLIDE_CHARACTERS = {
    "\u201c": "write a straight quote",
    "\u201d": "write a straight quote",
    "\u2018": "write a straight quote",
    "\u2019": "write a straight quote",
    "\u00a0": "write a plain space",
    "\u3000": "write a plain space",
    "\u2013": "write a plain minus sign",
    "\u2212": "write a plain minus sign",
    "\uff1a": "write a plain colon",
}


class Token(NamedTuple):
    """`kind` is name, number, string, symbol or end."""

    kind: str
    text: str
    start: int


@final
class Lexer:
    """`token` is the next token, not yet taken."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self._text = text
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._position = 1 if text.startswith("\ufeff") else 0
        self.token = self._scan()

    def take(self) -> Token:
        """The next token; the one after it becomes `token`."""
        taken = self.token
        self.token = self._scan()
        return taken

    def line(self, token: Token) -> int:
        return bisect_right(self._line_starts, token.start)

    def error(self, message: str, token: Token) -> PrototxtError:
        """The error with `file:line:column` of the token before its text."""
        line = self.line(token)
        column = token.start - self._line_starts[line - 1] + 1
        where = f"{self.file or '<text>'}:{line}:{column}"
        return PrototxtError(f"{where}: {message}", file=self.file, line=line, column=column)

    def _scan(self) -> Token:
        match = _TOKEN.match(self._text, self._position)
        if match is None or match.lastgroup is None:
            raise self._unreadable()
        self._position = match.end()
        kind = match.lastgroup
        return Token(kind, match[kind], match.start(kind))

    def _unreadable(self) -> PrototxtError:
        blank = _BLANK.match(self._text, self._position)
        assert blank is not None
        start = blank.end()
        character = self._text[start]
        token = Token("symbol", character, start)
        if character in "\"'":
            return self.error(f"a string must end on its line, got no closing {character}", token)
        number = _BROKEN_NUMBER.match(self._text, start)
        if number is not None:
            return self.error(
                f"a number must be decimal, hexadecimal or octal, got {shorten(number[0])}", token
            )
        remedy = _SLIDE_CHARACTERS.get(character)
        shown = ascii(character) if remedy or not character.isprintable() else character
        return self.error(f"unexpected character {shown}" + (f"; {remedy}" if remedy else ""), token)


def shorten(text: str) -> str:
    """The text, or its beginning if it is too long for an error message."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def unquote(literal: str) -> bytes:
    """The bytes that a quoted string stands for. Raises ValueError naming a bad escape."""
    raw = literal[1:-1].encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(_unescape, raw) if b"\\" in raw else raw


def _unescape(match: re.Match[bytes]) -> bytes:
    octal, hexadecimal, short, long, other = match.groups()
    if octal is not None:
        code = int(octal, 8)
        if code > 255:
            raise ValueError(f"an octal escape must be at most \\377, got {ascii(match[0].decode())[1:-1]}")
        return bytes([code])
    if hexadecimal is not None:
        return bytes([int(hexadecimal, 16)])
    if other is not None:
        if other[0] not in _SIMPLE_ESCAPES:
            raise ValueError(
                f"unknown escape \\{other.decode('utf-8', 'replace')}; write \\\\ for a backslash"
            )
        return bytes([_SIMPLE_ESCAPES[other[0]]])
    code = int(short or long, 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ValueError(f"unicode escape U+{code:04X} must be a character")
    return chr(code).encode()
