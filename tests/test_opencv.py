"""What is written here loads in OpenCV's own reader of caffemodels, and computes the same."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_net, write_binary
from dtrain.solvers.weights import copy_of, message_of
from tests.test_nets import draw

ROOT = Path(__file__).parents[1]
RTOL = 1e-4  # of each value, or of the largest one
SCORES = {  # the blob before the softmax
    "lenet": "ip2",
    "cifar10_full": "ip1",
    "caffenet": "fc8",
    "googlenet": "loss3/classifier",
    "resnet50": "fc1000",
    "nin": "pool4",
    "squeezenet": "pool10",
    "mobilenet": "fc7",
}


def random_net(model: str) -> Net:
    """The planned deploy net of a model for one image; random weights that keep activations in bounds."""
    param, _ = read_net(ROOT / "configs" / model / "deploy.prototxt")
    for layer in param.layer:
        if layer.type == "Input":
            layer.input_param.shape[0].dim[0] = 1
    net = Net(param, Scope(CpuBackend(), pb.TEST), plan=Plan())
    for layer in net.layers:
        for j, blob in enumerate(layer.blobs):
            blob.data.plain_overwrite()[...] = draw(layer.name, layer.spec.type, j, blob.shape)
    return net


def assert_close(got: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    assert np.ptp(expected) > 0, "a net without answers proves nothing"
    np.testing.assert_allclose(got, expected, RTOL, RTOL * float(np.abs(expected).max()))


@pytest.mark.parametrize("model", SCORES)
def test_opencv_computes_the_same_from_our_files(model: str, tmp_path: Path) -> None:
    net = random_net(model)
    weights = tmp_path / "random.caffemodel"
    write_binary(weights, message_of(net.name, copy_of(net)))
    theirs = cv2.dnn.readNetFromCaffe(str(ROOT / "configs" / model / "deploy.prototxt"), str(weights))
    image = np.random.default_rng(2).random(net.blob("data").shape, np.float32)
    net.blob("data").data.plain_overwrite()[...] = image
    net.forward()
    theirs.setInput(image)
    for name in (SCORES[model], "prob"):
        expected = net.blob(name).data.plain()
        assert_close(theirs.forward(name).reshape(expected.shape), expected)


def test_opencv_reads_a_net_that_we_print(tmp_path: Path) -> None:
    """The deploy text after parsing and formatting, with the inserted Splits in the weights' file."""
    net = random_net("googlenet")
    weights, printed = tmp_path / "random.caffemodel", tmp_path / "deploy.prototxt"
    message = message_of(net.name, copy_of(net))
    assert any(layer.type == "Split" for layer in message.layer)
    write_binary(weights, message)
    printed.write_text(text.format(read_net(ROOT / "configs/googlenet/deploy.prototxt")[0]))
    theirs = cv2.dnn.readNetFromCaffe(str(printed), str(weights))
    image = np.random.default_rng(2).random(net.blob("data").shape, np.float32)
    net.blob("data").data.plain_overwrite()[...] = image
    net.forward()
    theirs.setInput(image)
    assert_close(theirs.forward(), net.blob("prob").data.plain())
