"""`dtrain classify`: the lines of Caffe's cpp_classification, and its preparation of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.cli.main import run
from dtrain.data.decode import opencv
from dtrain.data.mean_file import write_mean
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import write_binary

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 10 dim: CHANNELS dim: 2 dim: 2 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
  pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
"""
BLUE, GREEN, RED = 10, 20, 60


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A net whose three outputs are the means of blue, green and red, each less the channel's mean."""
    (tmp_path / "net.prototxt").write_text(NET.replace("CHANNELS", "3"))
    weights = pb.NetParameter()
    layer = weights.layer.add(name="ip", type="InnerProduct")
    layer.blobs.add(shape=pb.BlobShape(dim=[3, 3])).data.extend(np.eye(3).ravel().tolist())
    layer.blobs.add(shape=pb.BlobShape(dim=[3])).data.extend([0, 0, 0])
    write_binary(tmp_path / "net.caffemodel", weights)
    (tmp_path / "labels.txt").write_text("n01 blue\nn02 green\nn03 red\n")
    image = np.full((8, 6, 3), (BLUE, GREEN, RED), np.uint8)
    for name in ("a.png", "b.png"):
        assert opencv().imwrite(str(tmp_path / name), image)
    return tmp_path


def classify(here: Path, mean: str, *images: str, top: str = "5") -> int:
    paths = [str(here / name) for name in ("net.prototxt", "net.caffemodel")]
    labels = str(here / "labels.txt")
    return run(["classify", *paths, mean, labels, *(str(here / i) for i in images), "--top", top])


def test_the_lines_are_those_of_caffe(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify(here, "0", "a.png", "b.png", top="2") == 0
    assert capsys.readouterr().out == "".join(
        f'---------- Prediction for {here}/{name} ----------\n60.0000 - "n03 red"\n20.0000 - "n02 green"\n'
        for name in ("a.png", "b.png")
    )


def test_a_mean_image_counts_by_channel(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mean = np.zeros((3, 4, 4), np.float32)
    mean[2, 0] = 4 * 50  # 50 on average
    write_mean(str(here / "mean.binaryproto"), mean)
    assert classify(here, str(here / "mean.binaryproto"), "a.png") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        '20.0000 - "n02 green"',
        '10.0000 - "n01 blue"',
        '10.0000 - "n03 red"',
    ]


def test_a_mean_may_be_given_as_numbers(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert classify(here, "0.5,20,60", "a.png") == 0
    assert capsys.readouterr().out.splitlines()[1] == '9.5000 - "n01 blue"'


@pytest.mark.parametrize(
    ("mean", "image", "labels", "told"),
    [
        ("1,2", "a.png", "a\nb\nc", "the mean must have 3 channels, as the input, got 2"),
        ("absent.binaryproto", "a.png", "a\nb\nc", "MEAN must be an existing file or numbers"),
        ("0", "a.png", "a\nb", 'labels must number as the values of "ip" (3), got 2'),
        ("0", "absent.png", "a\nb\nc", "absent.png: must be a readable image"),
        ("0", "labels.txt", "a\nb\nc", "labels.txt: must be an image that OpenCV decodes"),
    ],
)
def test_a_wrong_call_is_told_in_one_line(
    here: Path, mean: str, image: str, labels: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "labels.txt").write_text(labels)
    assert classify(here, mean, image) == 1
    err = capsys.readouterr().err
    assert told in err
    assert len(err.splitlines()) == 1


def test_a_net_of_another_kind_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "net.prototxt").write_text(NET.replace("CHANNELS", "4"))
    (here / "net.caffemodel").unlink()
    weights = pb.NetParameter(name="empty")
    write_binary(here / "net.caffemodel", weights)
    assert classify(here, "0", "a.png") == 1
    assert "the input must have shape (N, 1 or 3, H, W), got (10, 4, 2, 2)" in capsys.readouterr().err


def test_weights_that_lack_a_layer_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_binary(here / "net.caffemodel", pb.NetParameter(name="empty"))
    assert classify(here, "0", "a.png") == 1
    assert "weights of all layers of the net must be there, got none for ip" in capsys.readouterr().err
