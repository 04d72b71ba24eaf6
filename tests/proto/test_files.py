"""Binary files are read whole or refused by name, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from google.protobuf.message import Message

from dtrain.errors import ConfigError, DataError, SnapshotError, WeightsError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_binary, read_net, write_binary
from tests.shared import shared_path


def wire(tag: int, payload: bytes) -> bytes:
    """A length-delimited field; tags up to 2047, payloads up to 127 bytes."""
    key = tag << 3 | 2
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return head + bytes([len(payload)]) + payload


def varint_field(tag: int, value: int) -> bytes:
    key = tag << 3
    head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return head + bytes([value])


def net_of(tmp_path: Path, *layers: bytes) -> pb.NetParameter:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(b"".join(wire(100, layer) for layer in layers))
    net = pb.NetParameter()
    read_binary(path, net)
    return net


def test_files_of_caffe_load_and_are_written_back_byte_for_byte(tmp_path: Path) -> None:
    folder = shared_path("golden", "solvers")
    paths = sorted([*folder.glob("*.caffemodel"), *folder.glob("*.solverstate")])
    assert len(paths) == 20
    for path in paths:
        message: Message = pb.NetParameter() if path.suffix == ".caffemodel" else pb.SolverState()
        read_binary(path, message)
        write_binary(tmp_path / path.name, message)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_an_old_caffemodel_is_brought_up_to_date(tmp_path: Path) -> None:
    old = pb.NetParameter(name="old", input=["data"])
    layer = old.layers.add(name="ip", type=pb.V1LayerParameter.INNER_PRODUCT, blobs_lr=[1, 2])
    layer.blobs.add(num=1, channels=1, height=2, width=1, data=[3, 4])
    write_binary(tmp_path / "old.caffemodel", old)
    net = pb.NetParameter()
    read_binary(tmp_path / "old.caffemodel", net)
    assert not net.layers
    assert net.layer[0].type == "InnerProduct"
    assert list(net.layer[0].blobs[0].data) == [3, 4]


@pytest.mark.parametrize(
    ("message", "error"),
    [(pb.NetParameter(), WeightsError), (pb.SolverState(), SnapshotError), (pb.BlobProto(), DataError)],
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "got an empty file"),
        (b"\x0a\x7ftoo short", "truncated or of another format"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "got an HDF5 file"),
        (b'name: "net"\nlayer { name: "x" }\n', "got text"),
        (b"\x80\x02}q\x00X\x04\x00\x00\x00", "truncated or of another format"),
    ],
)
def test_foreign_bytes_are_refused_with_what_they_look_like(
    tmp_path: Path, message: Message, error: type[Exception], content: bytes, words: str
) -> None:
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(error, match=rf"weights: must be .*{words}"):
        read_binary(path, message)


def test_a_truncated_caffemodel_is_refused_at_every_length(tmp_path: Path) -> None:
    whole = shared_path("golden", "solvers", "adam_iter_6.caffemodel").read_bytes()
    path = tmp_path / "cut.caffemodel"
    complete = 0
    for length in range(1, len(whole), 13):
        path.write_bytes(whole[:length])
        net = pb.NetParameter()
        try:
            read_binary(path, net)
            complete += 1  # cut between two layers, which no reader can tell
        except WeightsError:
            pass
    assert complete <= 1


def test_a_missing_file_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent: must be a readable NetParameter file, got No such"):
        read_binary(tmp_path / "absent", pb.NetParameter())


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="name must be UTF-8 text"):
        net_of(tmp_path, wire(1, b"\xc4\xe3"))


def test_what_nvcaffe_wrote_under_bvlcs_tags_is_not_misread(tmp_path: Path) -> None:
    """forward_type 145, backward_type 146, forward_math 147, backward_math 148: numbers, not messages."""
    layer = (
        wire(1, b"c") + wire(2, b"Convolution") + b"".join(varint_field(tag, 2) for tag in range(145, 149))
    )
    net = net_of(tmp_path, layer)
    assert [field.name for field, _ in net.layer[0].ListFields()] == ["name", "type"]


def test_intels_smooth_l1_loss_is_told_from_clip_by_the_layers_type(tmp_path: Path) -> None:
    sigma = b"\x0d\x00\x00\x40\x40"  # field 1, float 3.0
    layer = wire(2, b"SmoothL1Loss") + wire(148, sigma)
    net = net_of(tmp_path, layer)
    assert net.layer[0].smooth_l1_loss_param.sigma == 3.0
    assert not net.layer[0].HasField("clip_param")
    with pytest.raises(WeightsError, match="required fields"):
        net_of(tmp_path, wire(2, b"Clip") + wire(148, sigma))


def test_pooling_tag_13_is_intels_only_in_a_net_with_other_fields_of_intel(tmp_path: Path) -> None:
    pooling = wire(2, b"Pooling") + wire(121, varint_field(13, 1))
    bvlc = net_of(tmp_path, pooling)
    assert bvlc.layer[0].pooling_param.round_mode == pb.PoolingParameter.FLOOR
    assert not bvlc.layer[0].pooling_param.HasField("avg_include_pad")
    intel = net_of(tmp_path, pooling, wire(1, b"c") + wire(149, b"MKLDNN"))
    assert intel.layer[0].pooling_param.avg_include_pad
    assert not intel.layer[0].pooling_param.HasField("round_mode")
    nvcaffe = net_of(tmp_path, pooling, wire(1, b"c") + varint_field(149, 1))
    assert nvcaffe.layer[0].pooling_param.HasField("round_mode")


@pytest.mark.parametrize("content", [varint_field(41, 1), wire(42, b"w")])
def test_a_binary_solver_with_disputed_tags_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "solver.bin"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="give the solver as prototxt"):
        read_binary(path, pb.SolverParameter())


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state"
    write_binary(path, pb.SolverState(iter=1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SnapshotError, match=r"state: must be writable, got No space left"):
        write_binary(path, pb.SolverState(iter=2))
    monkeypatch.undo()
    state = pb.SolverState()
    read_binary(path, state)
    assert state.iter == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_an_incomplete_message_is_not_written(tmp_path: Path) -> None:
    net = pb.NetParameter()
    net.layer.add().clip_param.min = 1
    with pytest.raises(WeightsError, match=r"clip_param\.max"):
        write_binary(tmp_path / "net", net)
    assert list(tmp_path.iterdir()) == []


def test_relative_paths_in_a_net_stay_as_written(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('layer { name: "d" type: "Data" data_param { source: "../db" backend: ARROW } }')
    net, sources = read_net(path)
    assert net.layer[0].data_param.source == "../db"
    assert sources.where(("layer", 0)) == f"{path}:1"
