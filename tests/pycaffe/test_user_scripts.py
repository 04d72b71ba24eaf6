"""What people do with pycaffe, as their notebooks have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.proto.files import read_binary
from dtrain.pycaffe.proto import caffe_pb2
from tests.pycaffe.nets import IMAGES, TRAINED, write_net, write_solver

RNG = np.random.default_rng(0)
FC = """layer { name: "fc" type: "InnerProduct" bottom: "conv2" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }"""
FC_CONV = """layer { name: "fc-conv" type: "Convolution" bottom: "conv2" top: "fc-conv"
  convolution_param { num_output: 10 kernel_size: 3 } }"""


def test_net_surgery_makes_a_net_fully_convolutional(tmp_path: Path) -> None:
    assert FC in IMAGES
    original = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    original.save(str(tmp_path / "w.caffemodel"))
    text = IMAGES.replace(FC, FC_CONV).replace('bottom: "fc"', 'bottom: "fc-conv"')
    net = caffe.Net(write_net(tmp_path, text, "conv.prototxt"), str(tmp_path / "w.caffemodel"), caffe.TEST)
    for pair in (("fc", "fc-conv"),):
        fc, conv = (made.params[name] for made, name in zip((original, net), pair, strict=True))
        conv[0].data.flat = fc[0].data.flat
        conv[1].data[...] = fc[1].data
    net.save(str(tmp_path / "surgery.caffemodel"))
    again = caffe.Net(
        str(tmp_path / "conv.prototxt"), caffe.TEST, weights=str(tmp_path / "surgery.caffemodel")
    )

    image = RNG.standard_normal((3, 16, 16)).astype(np.float32)
    again.blobs["data"].reshape(1, 3, 16, 16)
    again.blobs["data"].data[...] = image
    dense = again.forward()["prob"]
    assert dense.shape == (1, 10, 3, 3)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        original.blobs["data"].data[...] = image[:, 2 * row : 2 * row + 12, 2 * column : 2 * column + 12]
        np.testing.assert_allclose(
            dense[0, :, row, column], original.forward()["prob"][0], rtol=1e-4, atol=1e-6
        )


def test_features_are_taken_from_a_layer_within(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    images = RNG.standard_normal((7, 3, 12, 12)).astype(np.float32)
    features = []
    for start in range(0, 7, 2):
        batch = images[start : start + 2]
        net.blobs["data"].reshape(len(batch), 3, 12, 12)
        net.blobs["data"].data[...] = batch
        net.forward(end="conv2")
        features.append(net.blobs["conv2"].data.copy())
    net.blobs["data"].reshape(2, 3, 12, 12)
    expected = net.forward_all(blobs=["conv2"], data=images)["conv2"]
    np.testing.assert_allclose(np.concatenate(features), expected, rtol=1e-4, atol=1e-5)


def test_a_loop_of_steps_learns_and_is_tested_by_hand(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, TRAINED)))
    centres = RNG.standard_normal((3, 6)) * 2

    def fill(net: caffe.Net) -> None:
        labels = RNG.integers(3, size=8)
        net.blobs["label"].data[...] = labels
        net.blobs["data"].data[...] = centres[labels] + 0.3 * RNG.standard_normal((8, 6))

    losses, scores = np.zeros(40), []
    for it in range(40):
        fill(solver.net)
        solver.step(1)
        losses[it] = solver.net.blobs["loss"].data
        if it % 20 == 19:
            fill(solver.test_nets[0])
            solver.test_nets[0].forward(start="data")
            scores.append(float(solver.test_nets[0].blobs["accuracy"].data))
    assert losses[-5:].mean() < 0.1 * losses[0]
    assert scores[-1] == 1
    assert np.argmax(solver.test_nets[0].blobs["score"].data, 1).tolist() == list(
        solver.test_nets[0].blobs["label"].data
    )


def test_a_dream_rises_up_the_gradient_of_a_layer_within(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    src, dst = net.blobs["data"], net.blobs["conv2"]
    src.reshape(1, 3, 20, 20)
    src.data[0] = RNG.standard_normal((3, 20, 20))
    heights = []
    for _ in range(6):
        net.forward(end="conv2")
        heights.append(float((dst.data**2).sum()))
        dst.diff[:] = dst.data
        net.backward(start="conv2")
        g = src.diff[0]
        src.data[:] += 0.05 / np.abs(g).mean() * g
    assert heights == sorted(heights)
    assert heights[-1] > 1.5 * heights[0]


def test_the_gradient_of_a_class_is_that_of_differences(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    net.blobs["data"].reshape(1, 3, 12, 12)
    x = RNG.standard_normal((1, 3, 12, 12)).astype(np.float32)
    net.forward(data=x)
    net.blobs["fc"].diff[...] = 0
    net.blobs["fc"].diff[0, 4] = 1
    slope = net.backward(start="fc")["data"].copy()
    step = 1e-2 * RNG.standard_normal(x.shape)
    high, low = (net.forward(data=x + sign * step, end="fc")["fc"][0, 4].copy() for sign in (1, -1))
    assert (high - low) / 2 == pytest.approx(float((slope * step).sum()), rel=0.05)


def test_weights_are_edited_in_the_message_and_loaded(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)
    file = str(tmp_path / "w.caffemodel")
    net.save(file)
    message = caffe_pb2.NetParameter()
    read_binary(file, message)
    fc = next(layer for layer in message.layer if layer.name == "fc")
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(fc.blobs[0]), net.params["fc"][0].data)
    fc.blobs[1].CopyFrom(caffe.io.array_to_blobproto(np.arange(10.0)))
    Path(file).write_bytes(message.SerializeToString())
    net.copy_from(file)
    np.testing.assert_array_equal(net.params["fc"][1].data, np.arange(10))


def test_a_renamed_last_layer_is_trained_alone(tmp_path: Path) -> None:
    file = write_net(tmp_path, TRAINED)
    trained = caffe.SGDSolver(write_solver(tmp_path, file, "random_seed: 2"))
    trained.net.save(str(tmp_path / "w.caffemodel"))
    frozen = "param { lr_mult: 0 } param { lr_mult: 0 }"
    text = TRAINED.replace('top: "hidden"\n', f'top: "hidden" {frozen}\n', 1)
    file = write_net(tmp_path, text.replace('name: "score"', 'name: "score-new"'))
    solver = caffe.SGDSolver(write_solver(tmp_path, file))
    weights, head = (solver.net.params[name][0].data for name in ("hidden", "score-new"))
    first, loaded = head.copy(), trained.net.params["hidden"][0].data
    assert (weights != loaded).any()
    solver.net.copy_from(str(tmp_path / "w.caffemodel"))
    solver.net.blobs["data"].data[...] = RNG.standard_normal((8, 6))
    solver.step(3)
    np.testing.assert_array_equal(weights, loaded)
    assert (head != first).any()
