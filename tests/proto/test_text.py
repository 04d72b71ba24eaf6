"""Prototxt as it is written in the wild, and what is said of prototxt that is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from google.protobuf.message import Message

from dtrain.errors import ConfigError, PrototxtError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.shared import shared_path


def net(source: str) -> pb.NetParameter:
    message = pb.NetParameter()
    text.parse(source, message)
    return message


def layer(source: str) -> pb.LayerParameter:
    message = pb.LayerParameter()
    text.parse(source, message)
    return message


def fault(source: str, message: Message | None = None) -> PrototxtError:
    with pytest.raises(PrototxtError) as caught:
        text.parse(source, pb.NetParameter() if message is None else message, "net.prototxt")
    return caught.value


@pytest.mark.parametrize(
    "source",
    [
        'name: "a" layer { name: "b" top: "x" top: "y" }',
        'name:"a"layer{name:"b",top:"x";top:"y";}',
        "name: 'a' layer: { name: 'b' top: ['x', 'y'] }",
        'name: "a" layer < name: "b" top: ["x"] top: "y" >',
        '# first\nname: "a" # same line\r\nlayer [{ name: "b" top: "x", top: "y" }]',
        '\ufeffname: "a" layer: <name: "b" top: ["x", "y"]>',
        'name: "" "a" layer { name: \'\' "b" top: [] top: ["x" , "y"] }  # no newline at the end',
    ],
)
def test_every_form_of_a_field_gives_the_same_message(source: str) -> None:
    assert net(source) == pb.NetParameter(name="a", layer=[pb.LayerParameter(name="b", top=["x", "y"])])


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        (r'"a\nb\tc\\\"\'"', "a\nb\tc\\\"'"),
        (r'"\101\x42\u0043\U00000044"', "ABCD"),
        (r"'it\'s'", "it's"),
        (r'"\303\244"', "ä"),
        ('"ä"', "ä"),
        ('"a" "b"\n\'c\'', "abc"),
        ('"# no comment"', "# no comment"),
    ],
)
def test_strings_have_their_escapes_resolved_and_neighbours_joined(literal: str, value: str) -> None:
    assert net(f"name: {literal}").name == value


@pytest.mark.parametrize(
    ("literal", "value"),
    [("7", 7), ("-7", -7), ("- 7", -7), ("0x1F", 31), ("-0x10", -16), ("010", 8), ("0", 0), ("-0", 0)],
)
def test_integers_are_decimal_hexadecimal_or_octal(literal: str, value: int) -> None:
    assert net(f"input_dim: {literal}").input_dim == [value]


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("2.", 2.0),
        ("1e3", 1000.0),
        ("1.5E-3", 0.0015),
        ("0.5f", 0.5),
        ("3F", 3.0),
        ("3.4028235e38", 3.4028235e38),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("Infinity", math.inf),
    ],
)
def test_floats_take_every_spelling(literal: str, value: float) -> None:
    assert layer(f"loss_weight: {literal}").loss_weight[0] == pytest.approx(value, rel=1e-7)


def test_nan_is_a_float() -> None:
    assert math.isnan(layer("loss_weight: nan").loss_weight[0])


@pytest.mark.parametrize(
    ("literal", "value"),
    [(word, True) for word in ("true", "True", "t", "1")]
    + [(word, False) for word in ("false", "False", "f", "0")],
)
def test_booleans_take_every_spelling(literal: str, value: bool) -> None:
    message = net(f"force_backward: {literal}")
    assert message.HasField("force_backward")
    assert message.force_backward is value


def test_enums_are_given_by_name_or_number() -> None:
    assert net("state { phase: TRAIN }") == net("state { phase: 0 }")
    assert net("state { phase: TEST }").state.phase == pb.TEST


def test_an_empty_block_is_a_set_field() -> None:
    assert layer("relu_param { }").HasField("relu_param")


def test_a_field_named_as_a_python_keyword_is_read() -> None:
    assert getattr(layer("elu_param { lambda: 2 }").elu_param, "lambda") == 2


def test_old_spellings_within_a_layer_block_are_read_and_noted() -> None:
    message = pb.NetParameter()
    sources = text.parse('layer {\n type: SOFTMAX_LOSS\n param: "w" param { name: "b" } }', message)
    assert message.layer[0].type == "SoftmaxWithLoss"
    assert [spec.name for spec in message.layer[0].param] == ["w", "b"]
    assert sources.old_spellings == [
        'line 2: type: SOFTMAX_LOSS is read as type: "SoftmaxWithLoss"',
        'line 3: param: "w" is read as param { name: "w" }',
    ]


def test_a_source_map_knows_the_line_of_every_element() -> None:
    source = 'name: "n"\nlayer {\n  name: "a"\n}\nlayer {\n  pooling_param {\n    pad: 1\n  }\n}'
    sources = text.parse(source, pb.NetParameter(), "n.prototxt")
    assert sources.where(("layer", 0)) == "n.prototxt:2"
    assert sources.where(("layer", 1, "pooling_param", "pad")) == "n.prototxt:7"
    assert sources.where(("layer", 1, "pooling_param", "stride")) == "n.prototxt:6"
    assert sources.where(("layer", 1, "type")) == "n.prototxt:5"
    assert sources.where(("state",)) == "n.prototxt"
    assert sources.where() == "n.prototxt"


@pytest.mark.parametrize(
    ("source", "line", "column", "words"),
    [
        ('name: "x"\n  lyer { }', 2, 3, ['unknown NetParameter field "lyer"', 'did you mean "layer"?']),
        (
            'layer {\n name: "p"\n pooling_param { kernal_size: 3 } }',
            3,
            18,
            ['layer "p" pooling_param', '"kernal_size"', 'did you mean "kernel_size"?'],
        ),
        ("layer { include { phase: train } }", 1, 26, ['unknown phase "train"', 'did you mean "TRAIN"?']),
        ('state { phase: "TRAIN" }', 1, 16, ["phase must be one of TRAIN, TEST", "without quotes"]),
        ("state { phase: 5 }", 1, 16, ["phase must be one of TRAIN (0), TEST (1)", "got 5"]),
        ('layer { name: "a"\nname: "b" }', 2, 1, ["name must be given once", "line 1"]),
        ("state { }\nstate { }", 2, 1, ["state must be given once", "line 1"]),
        ("input_dim: 2147483648", 1, 12, ["input_dim", "32-bit integer", "2147483648", "out of range"]),
        ("input_dim: 1.5", 1, 12, ["input_dim must be a 32-bit integer, got 1.5"]),
        ("input_dim: 09", 1, 12, ["input_dim must be a 32-bit integer, got 09"]),
        ("input_dim: " + "9" * 5000, 1, 12, ["out of range"]),
        ('input_dim: "3"', 1, 12, ['input_dim must be a 32-bit integer, got "3"']),
        ("layer { pooling_param { pad: -1 } }", 1, 30, ["pad must be an integer from 0", "got -1"]),
        ("layer { loss_weight: 1e39 }", 1, 22, ["loss_weight must be a number", "got 1e39", "out of range"]),
        ("layer { loss_weight: 0x10 }", 1, 22, ["loss_weight must be a number, got 0x10"]),
        ("force_backward: 2", 1, 17, ["force_backward must be true or false, got 2"]),
        ("force_backward: yes", 1, 17, ["force_backward must be true or false, got yes"]),
        ("layer { type: Convolution }", 1, 15, ["type must be a quoted string", 'write "Convolution"']),
        ("layer: 3", 1, 8, ["layer must be a LayerParameter block { ... }, got", "3"]),
        ('name "x"', 1, 6, ['name must be followed by ":"', 'got "x"']),
        ("name: [", 1, 7, ["name must be a single value, got a list"]),
        ("layer {\n include {", 2, 10, ["layer include", "must be closed", "end of the text"]),
        ('layer { top: ["a" }', 1, 19, ['"," or "]" must come here']),
        ("layer { >", 1, 9, ['a field name must come here, got ">"']),
        ("}", 1, 1, ['a field name must come here, got "}"']),
        ('name: "x', 1, 7, ["a string must end on its line"]),
        ('name: "a\\qb"', 1, 7, ["name: unknown escape \\q"]),
        ('name: "\\777"', 1, 7, ["octal escape must be at most"]),
        ('name: "\\ud800"', 1, 7, ["U+D800"]),
        ('name: "\\xff"', 1, 7, ["name must be UTF-8 text"]),
        ("name: \u201cx\u201d", 1, 7, ["unexpected character '\\u201c'", "straight quote"]),
        ("input_dim: 12ab", 1, 12, ["a number must be", "12ab"]),
        ("name: @", 1, 7, ["unexpected character @"]),
        ("layer { blobs_lr: 1 }", 1, 9, ['LayerParameter has no field "blobs_lr"', "lr_mult"]),
        ("layer { clip_param { min: 0 } }", 1, 20, ["layer clip_param: max must be given, got none"]),
        ("layers { type: RELUX }", 1, 16, ['unknown type "RELUX"', 'did you mean "RELU"?']),
    ],
)
def test_a_fault_is_told_with_file_line_column_name_and_rule(
    source: str, line: int, column: int, words: list[str]
) -> None:
    error = fault(source)
    assert (error.file, error.line, error.column) == ("net.prototxt", line, column)
    assert str(error).startswith(f"net.prototxt:{line}:{column}: ")
    for word in words:
        assert word in str(error)


def test_comments_may_hold_bytes_of_another_encoding_but_names_may_not(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b'# \xc4\xe3\xba\xc3\nname: "n"\n')
    message = pb.NetParameter()
    text.read(path, message)
    assert message.name == "n"
    path.write_bytes(b'name: "\xc4\xe3"\n')
    with pytest.raises(PrototxtError, match=r"net\.prototxt:1:7: name must be UTF-8 text"):
        text.read(path, pb.NetParameter())


def test_a_binary_file_given_as_prototxt_is_refused_as_such(tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"\n\x03net\x00\x01")
    with pytest.raises(PrototxtError, match="must be prototxt, got binary data"):
        text.read(path, pb.NetParameter())


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.prototxt: must be a readable prototxt file, got No such"):
        text.read(tmp_path / "absent.prototxt", pb.NetParameter())


def golden_texts() -> list[tuple[str, str, Message]]:
    found: list[tuple[str, str, Message]] = []
    for path in sorted(shared_path("golden").glob("*/*.prototxt")):
        empty = pb.SolverParameter() if "solver" in path.name else pb.NetParameter()
        found.append((path.name, path.read_text(), empty))
    for path in sorted(shared_path("golden").rglob("*.npz")):
        with np.load(path) as arrays:
            keys = [key for key in arrays.files if {"net", "prototxt"} & set(key.split("|")[1:])]
            found += [(f"{path.name} {key}", str(arrays[key]), pb.NetParameter()) for key in keys]
    return found


def test_every_golden_text_reads_as_protobufs_own_parser_reads_it() -> None:
    texts = golden_texts()
    assert len(texts) > 400
    for name, source, empty in texts:
        expected = type(empty)()
        text_format.Parse(source, expected)
        text.parse(source, empty)
        assert empty == expected, name
        again = type(empty)()
        text.parse(text.format(empty), again)
        assert again == expected, name
