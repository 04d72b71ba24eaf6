"""Nets written in Python: `n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20)`.

`layers` (L) makes a function of every layer type, `params` (P) gives the values of enums, NetSpec names
what is assigned to it. Blobs without a name get one, the type and a number: Convolution1.

Source of names and rules: python/caffe/net_spec.py of BVLC Caffe 1.0.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
from google.protobuf.message import Message

from dtrain.errors import ConfigError, unknown_name
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.schema import fields

MESSAGE_SUFFIX: Final = "Parameter"
FIELD_SUFFIX: Final = "_param"
SHARED_MESSAGES: Final = {"Deconvolution": "convolution_param", "DepthwiseConvolution": "convolution_param"}


@functools.cache
def param_name_dict() -> dict[str, str]:
    """Layer type -> the field of LayerParameter with its parameters, without `_param`."""
    names = {}
    for known in fields(pb.LayerParameter.DESCRIPTOR).values():
        if known.is_message and known.name.endswith(FIELD_SUFFIX):
            names[known.type_name.removesuffix(MESSAGE_SUFFIX)] = known.name.removesuffix(FIELD_SUFFIX)
    return names


def assign_proto(proto: Message, name: str, value: Any) -> None:
    """Set a field to a Python value: a dict is a message, a list a repeated field.

    A repeated field takes a single value too. Enums take their numbers or their names.
    """
    known = fields(proto.DESCRIPTOR)
    if name not in known:
        raise ConfigError(unknown_name(f"field of {proto.DESCRIPTOR.name}", name, known))
    about = known[name]
    if isinstance(value, tuple | np.ndarray | np.generic):
        value = list(value) if isinstance(value, tuple) else value.tolist()
    if about.repeated:
        for item in value if isinstance(value, list) else [value]:
            if about.is_message:
                _assign_message(getattr(proto, name).add(), item, name)
            else:
                getattr(proto, name).append(_scalar(item, about.values))
    elif about.is_message:
        message = getattr(proto, name)
        message.SetInParent()
        _assign_message(message, value, name)
    else:
        try:
            setattr(proto, name, _scalar(value, about.values))
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{proto.DESCRIPTOR.name}: {name} must be {about.rule}, got {value!r}"
            ) from error


def _assign_message(message: Message, value: Any, name: str) -> None:
    if isinstance(value, Message):
        message.CopyFrom(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            assign_proto(message, key, item)
    else:
        raise ConfigError(f"{name} must be a dict or a {message.DESCRIPTOR.name}, got {value!r}")


def _scalar(value: Any, enum: Mapping[str, int]) -> Any:
    return enum.get(value, value) if isinstance(value, str) else value


@final
@dataclass(eq=False)
class _Writer:
    """Layers in the order in which they can run, and the names given so far."""

    names: dict[Any, str]  # of Tops and Functions
    layers: dict[Any, pb.LayerParameter] = field(default_factory=dict)  # by Function
    counts: Counter[str] = field(default_factory=Counter)

    def name(self, of: Any, type_name: str) -> str:
        """The name of a Top or a Function, made now if it has none."""
        if of not in self.names:
            self.counts[type_name] += 1
            self.names[of] = f"{type_name}{self.counts[type_name]}"
        return self.names[of]

    def net(self) -> pb.NetParameter:
        return pb.NetParameter(layer=self.layers.values())


@final
class Top:
    """One output of a layer, to be used as a bottom of others."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def __repr__(self) -> str:
        return f"Top({self.fn.type_name}, {self.n})"

    def to_proto(self) -> pb.NetParameter:
        """The net that computes it."""
        return to_proto(self)

    def write(self, writer: _Writer) -> None:
        """Add the layer that makes it, and all that it needs."""
        self.fn.write(writer)


@final
class Function:
    """A layer: its type, its bottoms and its parameters."""

    def __init__(self, type_name: str, inputs: tuple[Any, ...], params: Mapping[str, Any]) -> None:
        for index, given in enumerate(inputs):
            if not isinstance(given, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(given)})")
        self.type_name = type_name
        self.inputs: tuple[Top, ...] = inputs
        self.params = {key: value for key, value in params.items() if key not in ("ntop", "in_place")}
        self.ntop: int = params.get("ntop", 1)
        self.in_place: bool = params.get("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def write(self, writer: _Writer) -> None:
        """Add the layer, after those that it needs."""
        if self in writer.layers:
            return
        bottoms = []
        for given in self.inputs:
            given.write(writer)
            bottoms.append(writer.layers[given.fn].top[given.n])
        layer = pb.LayerParameter(type=self.type_name, bottom=bottoms)
        if self.in_place:
            layer.top.extend(bottoms)
        else:
            layer.top.extend(writer.name(top, self.type_name) for top in self.tops)
        if self.tops and self not in writer.names:
            writer.names[self] = writer.name(self.tops[0], self.type_name)
        layer.name = writer.name(self, self.type_name)
        for key, value in self.params.items():
            assign_proto(self._owner(layer, key), key, value)
        writer.layers[self] = layer

    def _owner(self, layer: pb.LayerParameter, key: str) -> Message:
        """The message that has the field: the type's own one, or the layer itself."""
        if not key.endswith("param"):
            short = param_name_dict().get(self.type_name)
            name = short + FIELD_SUFFIX if short else SHARED_MESSAGES.get(self.type_name)
            if name is not None:
                own: Message = getattr(layer, name)
                if key in fields(own.DESCRIPTOR) or key not in fields(layer.DESCRIPTOR):
                    return own
        return layer


@final
class NetSpec:
    """Tops by name, given as attributes or items; a layer without tops may be assigned too."""

    tops: dict[str, Any]

    def __init__(self) -> None:
        object.__setattr__(self, "tops", {})

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        if name not in self.tops:
            raise AttributeError(unknown_name("blob of the NetSpec", name, self.tops))
        return self.tops[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getitem__(self, name: str) -> Any:
        return self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def to_proto(self) -> pb.NetParameter:
        """The net that computes all that was assigned."""
        writer = _Writer({top: name for name, top in self.tops.items()})
        for top in self.tops.values():
            top.write(writer)
        return writer.net()


def to_proto(*tops: Top) -> pb.NetParameter:
    """The net that computes these."""
    writer = _Writer({})
    for top in tops:
        top.write(writer)
    return writer.net()


@final
class Layers:
    """`layers.Pooling(bottom, kernel_size=2)` is a Top; with ntop=2 a pair of them, with 0 a Function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer(*bottoms: Top, **given: Any) -> Any:
            made = Function(name, bottoms, given)
            if made.ntop == 0:
                return made
            return made.tops[0] if made.ntop == 1 else made.tops

        return layer


@final
class Parameters:
    """`params.Pooling.MAX` is the number of that value in PoolingParameter."""

    def __getattr__(self, name: str) -> Any:
        message = vars(pb).get(name + MESSAGE_SUFFIX)
        if message is None:
            known = [key.removesuffix(MESSAGE_SUFFIX) for key in vars(pb) if key.endswith(MESSAGE_SUFFIX)]
            raise AttributeError(unknown_name("parameter message", name, known))
        return message


layers: Final = Layers()
params: Final = Parameters()
