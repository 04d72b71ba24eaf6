"""From the spelling of a scalar in prototxt to its value.

Source: protobuf's C++ text format parser, which Caffe uses: what it takes is taken, and nothing else.
"""

from __future__ import annotations

import math

from dtrain.errors import unknown_name
from dtrain.proto.lexer import Token, shorten
from dtrain.proto.schema import INT_RANGES, Field, Type

_TRUE = frozenset({"true", "True", "t"})
_FALSE = frozenset({"false", "False", "f"})
_FLOAT_LIMIT = 2.0**128 - 2.0**103  # from here on a number rounds to infinity in 32 bits


def scalar(field: Field, token: Token, negative: bool) -> int | float | bool:
    """The value of a number or a bare word. Raises ValueError with the rule that it breaks."""
    shown = f"-{shorten(token.text)}" if negative else shorten(token.text)
    if field.type == Type.TYPE_ENUM:
        return _enum(field, token, negative)
    value: int | float | bool | None
    if field.type in INT_RANGES:
        value = _integer(token, negative)
        low, high = INT_RANGES[field.type]
        if value is not None and not low <= value <= high:
            raise ValueError(f"{field.name} must be {field.rule}, got {shown}, which is out of range")
    elif field.type in (Type.TYPE_FLOAT, Type.TYPE_DOUBLE):
        value = _number(token, negative)
        if value is not None and math.isinf(value) and token.kind == "number":
            raise ValueError(f"{field.name} must be {field.rule}, got {shown}, which is out of range")
        limited = value is not None and field.type == Type.TYPE_FLOAT and math.isfinite(value)
        if limited and value is not None and abs(value) >= _FLOAT_LIMIT:
            raise ValueError(
                f"{field.name} must be {field.rule} of 32 bits, got {shown}, which is out of range"
            )
    elif field.type == Type.TYPE_BOOL:
        value = None if negative else _boolean(token)
    else:
        value = None
    if value is None:
        remedy = f'; write "{shown}"' if field.type in (Type.TYPE_STRING, Type.TYPE_BYTES) else ""
        raise ValueError(f"{field.name} must be {field.rule}, got {shown}{remedy}")
    return value


def _integer(token: Token, negative: bool) -> int | None:
    """Decimal, hexadecimal after 0x, octal after 0."""
    text = token.text.lower()
    if token.kind != "number":
        return None
    if text.startswith("0x"):
        value = int(text, 16)
    elif not text.isdigit() or len(text) > 20:
        # 20 digits hold any 64-bit number; more would only cost time to convert.
        return None if not text.isdigit() else 2**64 * (-1 if negative else 1)
    elif text.startswith("0") and len(text) > 1:
        if set(text) & {"8", "9"}:
            return None
        value = int(text, 8)
    else:
        value = int(text)
    return -value if negative else value


def _number(token: Token, negative: bool) -> float | None:
    text = token.text.lower()
    if token.kind == "name" and text not in ("inf", "infinity", "nan"):
        return None
    if text.startswith("0x"):
        return None
    value = float(text.removesuffix("f") if token.kind == "number" else text)
    return -value if negative else value


def _boolean(token: Token) -> bool | None:
    if token.text in _TRUE:
        return True
    if token.text in _FALSE:
        return False
    number = _integer(token, negative=False)
    return bool(number) if number in (0, 1) else None


def _enum(field: Field, token: Token, negative: bool) -> int:
    if token.kind == "number" or negative:
        value = _integer(token, negative)
        if value is None or value not in field.values.values():
            known = ", ".join(f"{name} ({number})" for name, number in field.values.items())
            shown = f"-{shorten(token.text)}" if negative else shorten(token.text)
            raise ValueError(f"{field.name} must be one of {known}, got {shown}")
        return value
    if token.text not in field.values:
        raise ValueError(unknown_name(field.name, shorten(token.text), field.values))
    return field.values[token.text]
