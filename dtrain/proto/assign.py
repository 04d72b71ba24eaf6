"""Set a field by name, whatever its kind."""

from __future__ import annotations

from google.protobuf.message import Message

from dtrain.proto.schema import fields


def assign(message: Message, name: str, value: object) -> None:
    """Copy `value` to the field; a list is appended, and so is a single value to a field that is a list."""
    field = fields(message.DESCRIPTOR)[name]
    if field.repeated and isinstance(value, (int, float, str, bytes, Message)):
        getattr(message, name).append(value)
    elif field.repeated:
        getattr(message, name).extend(value)
    elif field.is_message:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
