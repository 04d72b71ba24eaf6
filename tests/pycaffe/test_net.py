"""caffe.Net: names, passes, weights, phases."""

from __future__ import annotations

import gc
import weakref
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import ConfigError, DtrainError, WeightsError
from tests.pycaffe.nets import IMAGES, SIMPLE, write_net


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write_net(tmp_path, SIMPLE)


@pytest.fixture
def net(file: str) -> caffe.Net:
    made = caffe.Net(file, caffe.TRAIN)
    made.blobs["label"].data[...] = np.random.default_rng(0).integers(13, size=5)
    return made


@pytest.fixture
def images(tmp_path: Path) -> caffe.Net:
    return caffe.Net(write_net(tmp_path, IMAGES), caffe.TEST)


def weights_of(net: caffe.Net) -> dict[str, list[np.ndarray]]:
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


def assert_same_weights(net: caffe.Net, expected: dict[str, list[np.ndarray]]) -> None:
    assert list(net.params) == list(expected)
    for name, blobs in net.params.items():
        for blob, values in zip(blobs, expected[name], strict=True):
            np.testing.assert_array_equal(blob.data, values)


# -- names


def test_blobs_params_and_layers_are_found_by_name_in_order(net: caffe.Net) -> None:
    assert list(net.blobs) == net._blob_names == ["data", "label", "conv", "ip_blob", "loss"]
    assert list(net._layer_names) == list(net.layer_dict) == ["data", "conv", "ip", "loss"]
    assert [layer.type for layer in net.layers] == [
        "DummyData",
        "Convolution",
        "InnerProduct",
        "SoftmaxWithLoss",
    ]
    assert {name: [blob.shape for blob in blobs] for name, blobs in net.params.items()} == {
        "conv": [(11, 2, 2, 2), (11,)],
        "ip": [(13, 11 * 8 * 9), (13,)],
    }
    assert net.layers[1].blobs[0].data is not None
    assert np.shares_memory(net.layers[1].blobs[0].data, net.params["conv"][0].data)


def test_inputs_and_outputs_are_what_no_layer_makes_or_reads(net: caffe.Net, images: caffe.Net) -> None:
    assert (net.inputs, net.outputs) == ([], ["loss"])
    assert (images.inputs, images.outputs) == (["data"], ["prob"])
    assert (images._inputs, [images._blob_names[i] for i in images._outputs]) == ([0], ["prob"])


def test_tops_and_bottoms_are_listed_by_layer(net: caffe.Net) -> None:
    tops = [("data", ["data", "label"]), ("conv", ["conv"]), ("ip", ["ip_blob"]), ("loss", ["loss"])]
    assert net.top_names == OrderedDict(tops)
    bottoms = [("data", []), ("conv", ["data"]), ("ip", ["conv"]), ("loss", ["ip_blob", "label"])]
    assert net.bottom_names == OrderedDict(bottoms)
    assert net._top_ids(2) == [3]
    assert net._bottom_ids(3) == [3, 1]


def test_loss_weights_are_listed_by_blob(net: caffe.Net) -> None:
    assert net.blob_loss_weights == {"data": 0, "label": 0, "conv": 0, "ip_blob": 0, "loss": 1}


def test_a_blob_tells_its_shape(images: caffe.Net) -> None:
    blob = images.blobs["conv1"]
    assert tuple(blob.shape) == (2, 16, 10, 10)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 16, 10, 10, 3200)
    assert images.blobs["prob"].width == 1
    assert blob.data.dtype == blob.diff.dtype == np.float32


# -- passes


def test_forward_returns_the_outputs_and_the_blobs_asked_for(net: caffe.Net) -> None:
    out = net.forward(blobs=["conv"])
    assert set(out) == {"loss", "conv"}
    np.testing.assert_array_equal(out["conv"], net.blobs["conv"].data)
    assert out["loss"] > 0
    assert net.backward() == {}


def test_forward_takes_arrays_for_the_inputs(images: caffe.Net) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    by_name = images.forward(data=x)["prob"].copy()
    images.blobs["data"].data[...] = x
    np.testing.assert_array_equal(images.forward()["prob"], by_name)
    np.testing.assert_allclose(by_name.sum(1), 1, rtol=1e-5)


def test_forward_runs_a_part_of_the_net(net: caffe.Net) -> None:
    values = np.random.default_rng(0).random(net.blobs["conv"].data.shape, np.float32)
    net.blobs["conv"].data[:] = values
    out = net.forward(start="ip", end="ip")
    weights, bias = (blob.data for blob in net.params["ip"])
    assert set(out) == {"ip_blob"}
    np.testing.assert_allclose(out["ip_blob"], values.reshape(5, -1) @ weights.T + bias, rtol=1e-3, atol=1e-4)


def test_backward_runs_a_part_of_the_net(net: caffe.Net) -> None:
    net.forward()
    diff = np.random.default_rng(0).random(net.blobs["ip_blob"].data.shape, np.float32)
    net.blobs["ip_blob"].diff[:] = diff
    out = net.backward(start="ip", end="ip")
    assert set(out) == {"conv"}
    expected = (diff @ net.params["ip"][0].data).reshape(out["conv"].shape)
    np.testing.assert_allclose(out["conv"], expected, rtol=1e-3, atol=1e-4)


def test_backward_takes_arrays_for_the_outputs(images: caffe.Net) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 12, 12))
    images.forward(data=x)
    diff = np.zeros((2, 10), np.float32)
    diff[:, 3] = 1
    whole = images.backward(diffs=["fc"], prob=diff)
    assert set(whole) == {"data", "fc"}
    p = images.blobs["prob"].data
    np.testing.assert_allclose(whole["fc"], p[:, 3:4] * (np.eye(10)[3] - p), atol=1e-6)


def test_forward_all_runs_any_number_of_images(images: caffe.Net) -> None:
    x = np.random.default_rng(0).standard_normal((5, 3, 12, 12)).astype(np.float32)
    out = images.forward_all(blobs=["fc"], data=x)
    assert {name: values.shape for name, values in out.items()} == {"prob": (5, 10), "fc": (5, 10)}
    for i in range(5):
        single = images.forward(data=np.stack([x[i], x[i]]))["prob"][0]
        np.testing.assert_allclose(out["prob"][i], single, rtol=1e-5)


def test_forward_all_gives_a_row_a_batch_for_a_blob_without_images(tmp_path: Path) -> None:
    sums = 'layer { name: "sum" type: "Reduction" bottom: "fc" top: "sum" }'
    net = caffe.Net(write_net(tmp_path, IMAGES + sums), caffe.TEST)
    out = net.forward_all(data=np.zeros((5, 3, 12, 12)))
    assert out["prob"].shape == (5, 10)
    assert out["sum"].shape == (3,)


def test_forward_backward_all_runs_both(images: caffe.Net) -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 12, 12))
    d = np.random.default_rng(1).standard_normal((3, 10))
    data, diffs = images.forward_backward_all(blobs=["fc"], data=x, prob=d)
    assert {name: values.shape for name, values in data.items()} == {"prob": (3, 10), "fc": (3, 10)}
    assert diffs["data"].shape == (3, 3, 12, 12)
    images.forward(data=x[:2])
    np.testing.assert_allclose(diffs["data"][:2], images.backward(prob=d[:2])["data"], rtol=1e-5, atol=1e-7)


def test_callbacks_see_every_layer_and_its_values(images: caffe.Net) -> None:
    seen: list[tuple[str, int]] = []
    shown: list[float] = []
    images.before_forward(lambda i: seen.append(("before", i)))
    images.after_forward(lambda i: seen.append(("after", i)))
    images.after_forward(lambda i: shown.append(float(images.blobs["conv1"].data.min())))
    images.before_backward(lambda i: seen.append(("before backward", i)))
    images.after_backward(lambda i: seen.append(("after backward", i)))
    images.forward(start="conv1", end="relu1", data=np.ones((2, 3, 12, 12)))
    assert seen == [("before", 1), ("after", 1), ("before", 2), ("after", 2)]
    assert shown[0] < 0 == shown[1]
    seen.clear()
    images.backward(start="relu1", end="relu1")
    assert seen == [("before backward", 2), ("after backward", 2)]


def test_gradients_add_up_until_they_are_cleared(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    diff = net.params["conv"][0].diff
    once = diff.copy()
    assert once.max() > 0
    net.backward()
    np.testing.assert_allclose(diff, 2 * once, rtol=1e-4, atol=1e-5)
    net.clear_param_diffs()
    assert not diff.any()


def test_a_reshaped_input_reshapes_the_net(images: caffe.Net) -> None:
    images.blobs["data"].reshape(1, 3, 12, 12)
    images.reshape()
    assert [blob.shape[0] for blob in images.blobs.values()] == [1] * 6
    images.blobs["data"].reshape(4, 3, 12, 12)
    assert images.forward()["prob"].shape == (4, 10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net: net.forward(start="conv9"), 'unknown layer "conv9"; did you mean "conv2"'),
        (lambda net: net.forward(blobs=["conv9"]), 'unknown blob "conv9"'),
        (lambda net: net.forward(image=np.zeros(2)), r"all inputs of the net \(data\) .* got image"),
        (
            lambda net: net.forward(data=np.zeros((3, 3, 12, 12))),
            r"data must have shape \(2, 3, 12, 12\), got",
        ),
        (lambda net: net.backward(fc=np.zeros(2)), r"all outputs of the net \(prob\) .* got fc"),
        (lambda net: net.forward_all(), "arrays of equally many images, at least one, got none"),
        (
            lambda net: net.params["fc"][0].reshape(3, 3),
            r"fc\[0\] must keep its shape \(10, 288\), got \(3, 3\)",
        ),
        (lambda net: net.set_input_arrays(np.zeros(1), np.zeros(1)), "must be of type MemoryData, got Input"),
        (lambda net: net.blobs["data"].reshape(-1, 2), r"extents must be at least 0, got \(-1, 2\)"),
    ],
)
def test_a_wrong_call_is_told(images: caffe.Net, call: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(images)  # type: ignore[operator]


# -- making nets, weights


def test_all_old_ways_to_make_a_net_work(file: str, net: caffe.Net, tmp_path: Path) -> None:
    weights = str(tmp_path / "w.caffemodel")
    net.save(weights)
    expected = weights_of(net)
    for made in (
        caffe.Net(file, weights, caffe.TRAIN),
        caffe.Net(file, caffe.TRAIN, weights=weights),
        caffe.Net(network_file=file, phase=caffe.TRAIN, weights=weights),
        caffe.Net(file, caffe.TRAIN, 0, None, weights),
        caffe.Net(Path(file), Path(weights), caffe.TRAIN),
    ):
        assert_same_weights(made, expected)
    with pytest.raises(AssertionError):
        assert_same_weights(caffe.Net(file, caffe.TRAIN), expected)


def test_a_net_without_a_phase_or_with_a_wrong_argument_is_told(file: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"phase must be an integer, got None; Net\(file, caffe.TEST\)"):
        caffe.Net(file)
    with pytest.raises(ConfigError, match="stages must be a list of names, got 'deploy'"):
        caffe.Net(file, caffe.TEST, stages="deploy")
    with pytest.raises(DtrainError, match=r"absent\.prototxt"):
        caffe.Net(str(tmp_path / "absent.prototxt"), caffe.TEST)
    with pytest.raises(WeightsError, match=r"absent\.caffemodel: must be a readable file"):
        caffe.Net(file, str(tmp_path / "absent.caffemodel"), caffe.TEST)


def test_weights_go_through_hdf5_whatever_the_file_is_called(
    file: str, net: caffe.Net, tmp_path: Path
) -> None:
    pytest.importorskip("h5py")
    stored = str(tmp_path / "weights")
    net.save_hdf5(stored)
    for load in (caffe.Net.load_hdf5, caffe.Net.copy_from):
        other = caffe.Net(file, caffe.TRAIN)
        load(other, stored)
        assert_same_weights(other, weights_of(net))


def test_a_net_that_shares_weights_follows_them(file: str, net: caffe.Net) -> None:
    other = caffe.Net(file, caffe.TRAIN)
    other.share_with(net)
    net.params["ip"][0].data[...] = 0
    net.params["ip"][1].data[...] = np.arange(13)
    assert_same_weights(other, weights_of(net))
    np.testing.assert_array_equal(
        other.forward(blobs=["ip_blob"])["ip_blob"], np.tile(np.arange(13.0), (5, 1))
    )


def test_weights_are_shared_with_a_net_of_another_batch_size(images: caffe.Net, tmp_path: Path) -> None:
    text = IMAGES.replace("dim: 2 dim: 3 dim: 12 dim: 12", "dim: 7 dim: 3 dim: 20 dim: 20", 1)
    text = text.replace('"fc"', '"fc7"')
    other = caffe.Net(write_net(tmp_path, text), caffe.TEST)
    other.share_with(images)
    held = images.params["conv2"][0].data
    x = np.random.default_rng(0).standard_normal((7, 3, 20, 20))
    for value in (0.0, 1.0):
        held[...] = value
        shared = other.forward(data=x, end="conv2")["conv2"]
        images.blobs["data"].reshape(7, 3, 20, 20)
        np.testing.assert_allclose(shared, images.forward(data=x, end="conv2")["conv2"], rtol=1e-4, atol=1e-4)
        assert (not shared.any()) == (value == 0)
    other.backward(start="conv2")
    assert not images.params["conv2"][0].diff.any()


def test_weights_of_another_shape_are_not_shared(net: caffe.Net, tmp_path: Path) -> None:
    other = caffe.Net(write_net(tmp_path, SIMPLE.replace("num_output: 13", "num_output: 12")), caffe.TRAIN)
    with pytest.raises(WeightsError, match=r'layer "ip" must have blobs of shapes .*13, 792.* got .*12, 792'):
        other.share_with(net)


def test_arrays_outlive_the_net(net: caffe.Net) -> None:
    blobs = [*net.blobs.values(), *(blob for blobs in net.params.values() for blob in blobs)]
    gone = weakref.ref(net)
    del net
    gc.collect()
    total = sum(float(blob.data.sum() + blob.diff.sum()) for blob in blobs)
    assert np.isfinite(total)
    assert gone() is None or blobs  # the fixture itself may still hold the net


def test_nets_after_the_same_seed_are_equal_and_two_in_a_row_are_not(file: str) -> None:
    caffe.set_random_seed(7)
    first, second = caffe.Net(file, caffe.TRAIN), caffe.Net(file, caffe.TRAIN)
    caffe.set_random_seed(7)
    assert_same_weights(caffe.Net(file, caffe.TRAIN), weights_of(first))
    assert (first.params["ip"][0].data != second.params["ip"][0].data).all()


LEVELS = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 10 dim: 10 } } }
layer { name: "NoLevel" type: "InnerProduct" bottom: "data" top: "NoLevel"
  inner_product_param { num_output: 1 } }
layer { name: "Level1Only" type: "InnerProduct" bottom: "data" top: "Level1Only"
  include { min_level: 1 max_level: 1 } inner_product_param { num_output: 1 } }
layer { name: "Level>=1" type: "InnerProduct" bottom: "data" top: "Level>=1"
  include { min_level: 1 } inner_product_param { num_output: 1 } }
layer { name: "A" type: "InnerProduct" bottom: "data" top: "A" include { stage: "A" }
  inner_product_param { num_output: 1 } }
layer { name: "AandB" type: "InnerProduct" bottom: "data" top: "AandB" include { stage: "A" stage: "B" }
  inner_product_param { num_output: 1 } }
layer { name: "train" type: "InnerProduct" bottom: "data" top: "train" include { phase: TRAIN }
  inner_product_param { num_output: 1 } }
"""


@pytest.mark.parametrize(
    ("phase", "level", "stages", "expected"),
    [
        (caffe.TEST, 0, None, {"NoLevel"}),
        (caffe.TEST, 1, None, {"NoLevel", "Level1Only", "Level>=1"}),
        (caffe.TEST, 2, [], {"NoLevel", "Level>=1"}),
        (caffe.TEST, 0, ["A"], {"NoLevel", "A"}),
        (caffe.TEST, 0, ("B", "A"), {"NoLevel", "A", "AandB"}),
        (caffe.TRAIN, 0, None, {"NoLevel", "train"}),
    ],
)
def test_phase_level_and_stages_choose_layers(
    tmp_path: Path, phase: int, level: int, stages: list[str] | None, expected: set[str]
) -> None:
    net = caffe.Net(write_net(tmp_path, LEVELS), phase, level=level, stages=stages)
    assert {name for name in net._layer_names if "split" not in name} == expected | {"data"}


MEMORY = """
layer { name: "data" type: "MemoryData" top: "data" top: "label"
  memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }
layer { name: "power" type: "Power" bottom: "data" top: "power" power_param { scale: 2 } }
layer { name: "silence" type: "Silence" bottom: "label" }
"""


def test_a_memory_data_layer_serves_the_arrays_of_the_script(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, MEMORY), caffe.TEST)
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for i in (0, 2, 0):
        np.testing.assert_array_equal(net.forward()["power"], 2 * data[i : i + 2])
        np.testing.assert_array_equal(net.blobs["label"].data, [i, i + 1])
