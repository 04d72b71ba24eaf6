"""`dtrain upgrade`: Caffe's own results, text and binary."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.message import Message

from dtrain.cli.main import run
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_binary
from tests.shared import shared_path


def message_of(path: Path, message: Message) -> Message:
    text.read(path, message)
    return message


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("v0_net", pb.NetParameter),
        ("v1_net", pb.NetParameter),
        ("input_fields", pb.NetParameter),
        ("input_shape", pb.NetParameter),
        ("solver_enum", pb.SolverParameter),
    ],
)
def test_text_becomes_what_caffe_makes_of_it(
    name: str, kind: type[Message], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared_path("golden", "upgrade", f"{name}.prototxt")
    out = tmp_path / "new.prototxt"
    assert run(["upgrade", str(source), str(out)]) == 0
    wanted = source.with_name(f"{name}.upgraded.prototxt")
    assert message_of(out, kind()) == message_of(wanted, kind())
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) > 1
    assert shown[-1] == f"{out}: written"


def test_a_binary_net_keeps_its_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = pb.NetParameter(name="old")
    layer = old.layers.add(name="ip", type=pb.V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
    layer.blobs.add(num=1, channels=1, height=1, width=2).data.extend([3, 4])
    (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
    assert run(["upgrade", str(tmp_path / "old.caffemodel"), str(tmp_path / "new.caffemodel")]) == 0
    assert "layers" in capsys.readouterr().out
    new = pb.NetParameter()
    assert read_binary(tmp_path / "new.caffemodel", new) == []
    assert [(layer.name, layer.type) for layer in new.layer] == [("ip", "InnerProduct")]
    assert list(new.layer[0].blobs[0].data) == [3, 4]
    assert [spec.lr_mult for spec in new.layer[0].param] == [1, 2]


def test_a_file_of_today_is_told_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").write_text('base_lr: 0.5  # a solver\ntype: "Adam"\n')
    assert run(["upgrade", str(tmp_path / "in"), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out: written, nothing was out of date\n"
    solver = pb.SolverParameter()
    text.read(tmp_path / "out", solver)
    assert (solver.base_lr, solver.type) == (0.5, "Adam")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"base_lr: 1\nbase_rl: 2", 'in:2:1: unknown SolverParameter field "base_rl"'),
        (b'layer { name: "a"\n tipe: "b" }', "in:2:2: "),
        (b"\x00\x01", "in: must be a whole NetParameter file"),
    ],
)
def test_the_error_is_that_of_the_reading_which_came_further(
    content: bytes, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").write_bytes(content)
    assert run(["upgrade", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
