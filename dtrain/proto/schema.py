"""What the parser asks of the schema: the fields of a message by name, and their types in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import final

from google.protobuf.descriptor import Descriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto

Type = FieldDescriptorProto

INT_RANGES: Mapping[int, tuple[int, int]] = {
    Type.TYPE_INT32: (-(2**31), 2**31 - 1),
    Type.TYPE_INT64: (-(2**63), 2**63 - 1),
    Type.TYPE_UINT32: (0, 2**32 - 1),
    Type.TYPE_UINT64: (0, 2**64 - 1),
}

_IN_WORDS: Mapping[int, str] = {
    Type.TYPE_INT32: "a 32-bit integer",
    Type.TYPE_INT64: "a 64-bit integer",
    Type.TYPE_UINT32: "an integer from 0 to 4294967295",
    Type.TYPE_UINT64: "an integer from 0 to 18446744073709551615",
    Type.TYPE_FLOAT: "a number",
    Type.TYPE_DOUBLE: "a number",
    Type.TYPE_BOOL: "true or false",
    Type.TYPE_STRING: "a quoted string",
    Type.TYPE_BYTES: "a quoted string",
}


@final
@dataclass(frozen=True, slots=True)
class Field:
    """One field; `values` are the names of its enum, if it has one."""

    name: str
    type: int
    repeated: bool
    required: bool
    type_name: str
    values: Mapping[str, int]

    @property
    def is_message(self) -> bool:
        return self.type == Type.TYPE_MESSAGE

    @property
    def rule(self) -> str:
        """What a value must be, for an error text."""
        if self.is_message:
            return f"a {self.type_name} block {{ ... }}"
        if self.type == Type.TYPE_ENUM:
            return "one of " + ", ".join(self.values)
        return _IN_WORDS[self.type]


@cache
def fields(descriptor: Descriptor) -> Mapping[str, Field]:
    """The fields of a message type, by name."""
    proto = DescriptorProto()
    descriptor.CopyToProto(proto)
    found: dict[str, Field] = {}
    for field in proto.field:
        enum = descriptor.fields_by_name[field.name].enum_type
        found[field.name] = Field(
            name=field.name,
            type=field.type,
            repeated=field.label == Type.LABEL_REPEATED,
            required=field.label == Type.LABEL_REQUIRED,
            type_name=field.type_name.rpartition(".")[2],
            values={value.name: value.number for value in enum.values} if enum is not None else {},
        )
    return found
