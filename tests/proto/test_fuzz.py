"""Whatever the bytes, reading ends soon, with a message or with one of our errors."""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.errors import DtrainError, PrototxtError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.blobproto import blobproto_to_array
from dtrain.proto.files import read_binary
from dtrain.proto.schema import Field, Type, fields
from dtrain.proto.upgrade import upgrade_net

SEED_TEXT = """name: "n" # comment
input: "data" input_shape { dim: 1 dim: 3 }
layer { name: "p" type: "Pooling" bottom: "data" top: ["a", 'b'] pooling_param < pool: MAX kernel_size: 3 > }
layer { name: "c" type: CONVOLUTION param: "w" convolution_param { pad: 0x1 weight_filler { std: 1e-2 } } }
layers { layer { name: "r" type: "relu" } bottom: "c" top: "r\\n\\x41" } state { phase: TEST stage: "s" "t" }
"""
SYMBOLS = "{}<>[]:,;-\"'\\#\n0\x00é\u201c\udcff\ufeff"
WORDS = ["layer", "param", "type", "name", "top", "dim", "1e999", "nan"]
PIECES = st.sampled_from([*SYMBOLS, *WORDS, "9" * 30, "layer {" * 60])
TEXT_SECONDS = 2.0


@st.composite
def mutated(draw: st.DrawFn) -> str:
    source = SEED_TEXT
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(source)))
        stop = min(len(source), start + draw(st.integers(0, 12)))
        source = source[:start] + draw(PIECES | st.text(max_size=3)) + source[stop:]
    return source


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_mutated_prototxt_gives_a_net_or_one_of_our_errors(source: str) -> None:
    net = pb.NetParameter()
    where = (1, 1)
    begin = time.perf_counter()
    try:
        sources = text.parse(source, net, "f")
        upgrade_net(net, sources)
    except PrototxtError as error:
        where = (error.line, error.column)
    except DtrainError:
        pass
    assert min(where) >= 1
    assert time.perf_counter() - begin < TEXT_SECONDS


def test_hostile_texts_end_soon() -> None:
    size = 200_000
    hostile = ["{" * size, "layer {" * size, '"' * size, '"\\' * size, "# " * size, "1" * size, "a" * size]
    hostile += [f"name: {'[' * size}", f'name: "{"x" * size}', f"input_dim: {'9' * size}", "-" * size]
    hostile += ["name: " + '"a" ' * size, " " * size + "@", "input_dim: [" + "1," * size]
    begin = time.perf_counter()
    for source in hostile:
        with contextlib.suppress(PrototxtError):
            text.parse(source, pb.NetParameter())
    assert time.perf_counter() - begin < 15


def scalars(field: Field) -> st.SearchStrategy[Any]:
    if field.type == Type.TYPE_ENUM:
        return st.sampled_from(sorted(field.values.values()))
    if field.type == Type.TYPE_BOOL:
        return st.booleans()
    if field.type == Type.TYPE_STRING:
        return st.text(max_size=8)
    if field.type == Type.TYPE_BYTES:
        return st.binary(max_size=8)
    if field.type == Type.TYPE_FLOAT:
        return st.floats(width=32, allow_nan=False)
    if field.type == Type.TYPE_DOUBLE:
        return st.floats(allow_nan=False)
    sizes = {Type.TYPE_INT32: (31, True), Type.TYPE_INT64: (63, True), Type.TYPE_UINT32: (32, False)}
    bits, signed = sizes[field.type]
    return st.integers(-(2**bits) if signed else 0, 2**bits - 1)


def fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    known = fields(message.DESCRIPTOR)
    chosen = set(draw(st.lists(st.sampled_from(sorted(known)), max_size=4, unique=True)))
    for name in sorted(chosen | {name for name, field in known.items() if field.required}):
        field = known[name]
        if not field.is_message:
            values = draw(st.lists(scalars(field), min_size=1, max_size=3))
            if field.repeated:
                getattr(message, name).extend(values)
            else:
                setattr(message, name, values[0])
        elif depth:
            child = getattr(message, name).add() if field.repeated else getattr(message, name)
            child.SetInParent()
            fill(draw, child, depth - 1)


@st.composite
def messages(draw: st.DrawFn) -> Message:
    message: Message = draw(st.sampled_from([pb.NetParameter, pb.SolverParameter, pb.LayerParameter]))()
    fill(draw, message, 3)
    return message


@settings(max_examples=200, deadline=None)
@given(messages())
def test_writing_and_parsing_gives_an_equal_message(message: Message) -> None:
    back = type(message)()
    text.parse(text.format(message), back)
    assert back == message


def seed_net() -> bytes:
    net = pb.NetParameter(name="n", input=["d"])
    for kind in ("Clip", "Pooling", "BatchNorm"):
        layer = net.layer.add(name=kind.lower(), type=kind, top=["t"])
        layer.blobs.add(shape=pb.BlobShape(dim=[2]), data=[1, 2])
        layer.blobs.add(num=1, channels=1, height=1, width=2, double_data=[1, 2])
    net.layer[0].clip_param.min, net.layer[0].clip_param.max = 0, 1
    net.layer[1].pooling_param.round_mode = pb.PoolingParameter.FLOOR
    net.layer[2].blobs.add(raw_data=b"ab", raw_data_type=pb.FLOAT16, shape=pb.BlobShape(dim=[1]))
    return net.SerializeToString()


@st.composite
def mutated_bytes(draw: st.DrawFn) -> bytes:
    data = bytearray(seed_net())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


@settings(max_examples=500, deadline=None)
@given(mutated_bytes())
def test_mutated_weights_give_arrays_or_one_of_our_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.caffemodel"
    path.write_bytes(data)
    net = pb.NetParameter()
    with contextlib.suppress(DtrainError):
        read_binary(path, net)
        for layer in net.layer:
            assert isinstance(layer.name + layer.type, str)
            for blob in layer.blobs:
                array = blobproto_to_array(blob)
                assert array.size == math.prod(array.shape)
