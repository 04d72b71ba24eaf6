"""Weights from files of Caffe and of its forks, binary and HDF5."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.errors import WeightsError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.blobproto import array_to_blobproto
from dtrain.proto.files import write_binary
from dtrain.solvers import hdf5, weights
from dtrain.solvers.batch_norm_blobs import in_order

Array = NDArray[np.float32]


def floats(values: list[float]) -> Array:
    return np.array(values, np.float32)


HEAD = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 2 dim: 2 } } }\n'
)
NORM = 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" FIELDS }\n'
SCALE = 'layer { name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param { bias_term: true } }\n'
IP = (
    'layer { name: "a/ip" type: "InnerProduct" bottom: "data" top: "ip"\n'
    "  inner_product_param { num_output: 2 } }\n"
)

MEAN, VARIANCE, FACTOR = floats([1, 2, 3]), floats([4, 5, 6]), floats([2])
GAIN, BIAS = floats([7, 8, 9]), floats([-1, -2, -3])
ONE = np.ones(1, np.float32)


def build(*layers: str) -> Net:
    param = pb.NetParameter()
    text.parse(HEAD + "".join(layers), param)
    return Net(param, Scope(CpuBackend(), pb.TEST))


def norm(fields: str = "") -> str:
    return NORM.replace("FIELDS", fields)


def values(net: Net, name: str) -> list[list[float]]:
    return [blob.data.plain().ravel().tolist() for blob in net.layer(name).blobs]


def lists(*arrays: Array) -> list[list[float]]:
    return [array.ravel().tolist() for array in arrays]


def four_axes(array: Array) -> Array:
    return array.reshape(1, -1, 1, 1)


def stored(*layers: tuple[str, str, str, list[Array]]) -> pb.NetParameter:
    """A caffemodel of layers (name, type, blob that it makes from "data" or from itself, blobs)."""
    message = pb.NetParameter()
    for name, kind, blob, arrays in layers:
        layer = message.layer.add(name=name, type=kind, top=[blob])
        layer.bottom.append("data" if kind == "BatchNorm" else blob)
        layer.blobs.extend(array_to_blobproto(array) for array in arrays)
    return message


LAYOUTS = {
    "NVCaffe 0.17": [MEAN, VARIANCE, ONE, GAIN, BIAS],
    "NVCaffe 0.15": [GAIN, BIAS, MEAN, VARIANCE, np.zeros(1, np.float32)],
    "NVCaffe 0.15 with cuDNN": [*map(four_axes, (GAIN, BIAS, MEAN, VARIANCE, np.zeros(1, np.float32)))],
    "NVCaffe 0.14 with cuDNN": [*map(four_axes, (GAIN, BIAS, np.zeros(1, np.float32), MEAN, VARIANCE))],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_five_blobs_of_nvcaffe_take_the_order_of_the_layer(layout: str) -> None:
    net = build(norm("batch_norm_param { scale_bias: true }"))
    weights.load_message(net, stored(("bn", "BatchNorm", "bn", LAYOUTS[layout])), "file")
    assert values(net, "bn") == lists(MEAN, VARIANCE, ONE, GAIN, BIAS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_order_is_the_same_from_hdf5(layout: str, tmp_path: Path) -> None:
    net = build(norm("batch_norm_param { scale_bias: true }"))
    hdf5.write(
        tmp_path / "net.caffemodel.h5", {f"data/bn/{j}": array for j, array in enumerate(LAYOUTS[layout])}
    )
    weights.load(net, tmp_path / "net.caffemodel.h5")
    assert values(net, "bn") == lists(MEAN, VARIANCE, ONE, GAIN, BIAS)


def test_one_channel_keeps_the_order_of_one_axis() -> None:
    arrays = [floats([v]) for v in (1, 2, 3, 4, 5)]
    blobs = in_order([array_to_blobproto(array) for array in arrays], "file")
    assert [blob.data[0] for blob in blobs] == [1, 2, 3, 4, 5]


def test_three_blobs_of_caffe_stay_as_they_are() -> None:
    net = build(norm(), SCALE)
    message = stored(
        ("bn", "BatchNorm", "bn", [MEAN, VARIANCE, FACTOR]), ("scale", "Scale", "bn", [GAIN, BIAS])
    )
    weights.load_message(net, message, "file")
    assert values(net, "bn") == lists(MEAN, VARIANCE, FACTOR)
    assert values(net, "scale") == lists(GAIN, BIAS)


def test_a_factor_of_zero_beside_a_variance_is_one(caplog: pytest.LogCaptureFixture) -> None:
    net = build(norm())
    zero = np.zeros(1, np.float32)
    weights.load_message(net, stored(("bn", "BatchNorm", "bn", [MEAN, VARIANCE, zero])), "file")
    assert values(net, "bn") == lists(MEAN, VARIANCE, ONE)
    assert 'file: layer "bn": a factor of 0 is read as 1' in caplog.text


def test_a_factor_of_zero_of_an_untrained_layer_stays() -> None:
    net = build(norm())
    nothing = [np.zeros(3, np.float32), np.zeros(3, np.float32), np.zeros(1, np.float32)]
    weights.load_message(net, stored(("bn", "BatchNorm", "bn", nothing)), "file")
    assert values(net, "bn")[2] == [0]


def test_scale_and_bias_that_intel_caffe_merged_go_to_the_scale_layer() -> None:
    net = build(norm(), SCALE)
    merged = [MEAN, VARIANCE, FACTOR, GAIN, BIAS]
    weights.load_message(net, stored(("bn", "BatchNorm", "bn", merged)), "file")
    assert values(net, "bn") == lists(MEAN, VARIANCE, FACTOR)
    assert values(net, "scale") == lists(GAIN, BIAS)


def test_a_stored_scale_layer_goes_into_a_layer_that_scales_itself(caplog: pytest.LogCaptureFixture) -> None:
    net = build(norm("batch_norm_param { use_weight_bias: true }"))
    message = stored(
        ("bn", "BatchNorm", "bn", [MEAN, VARIANCE, FACTOR]), ("scale", "Scale", "bn", [GAIN, BIAS])
    )
    with caplog.at_level(logging.INFO):
        weights.load_message(net, message, "file")
    assert values(net, "bn") == lists(MEAN, VARIANCE, FACTOR, GAIN, BIAS)
    assert "Ignoring" not in caplog.text


def test_five_blobs_for_a_layer_of_three_without_a_scale_layer_are_refused() -> None:
    with pytest.raises(WeightsError, match=r'layer "bn" \(BatchNorm\): the number of blobs must be 3, got 5'):
        weights.load_message(
            build(norm()), stored(("bn", "BatchNorm", "bn", [MEAN, VARIANCE, ONE, GAIN, BIAS])), "file"
        )


def test_merging_and_parting_give_the_same_outputs() -> None:
    parted, merged = build(norm(), SCALE), build(norm("batch_norm_param { scale_bias: true }"))
    message = stored(("bn", "BatchNorm", "bn", [MEAN, VARIANCE, FACTOR, GAIN, BIAS]))
    data = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    for net in (parted, merged):
        weights.load_message(net, message, "file")
        net.blob("data").data.plain_overwrite()[...] = data
        net.forward()
    expected = (data - (MEAN / 2)[:, None, None]) / np.sqrt((VARIANCE / 2)[:, None, None] + 1e-5)
    expected = expected * GAIN[:, None, None] + BIAS[:, None, None]
    for net in (parted, merged):
        assert np.allclose(net.blob("bn").data.plain(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["<f4", "<f2", "<f8"])
def test_raw_blobs_of_nvcaffe_are_read(kind: str, tmp_path: Path) -> None:
    net = build(IP)
    weight = np.arange(24, dtype=np.float32).reshape(2, 12) / 4
    message = stored(("a/ip", "InnerProduct", "ip", []))
    for array in (weight, floats([1, -1])):
        blob = message.layer[0].blobs.add(shape=pb.BlobShape(dim=array.shape))
        blob.raw_data = array.astype(kind).tobytes()
        blob.raw_data_type = {"<f8": pb.DOUBLE, "<f4": pb.FLOAT, "<f2": pb.FLOAT16}[kind]
    write_binary(tmp_path / "net.caffemodel", message)
    weights.load(net, tmp_path / "net.caffemodel")
    assert values(net, "a/ip") == lists(weight, floats([1, -1]))


# HDF5


def h5_of(folder: Path, datasets: dict[str, Array]) -> Path:
    path = folder / "net.caffemodel.h5"
    with h5py.File(path, "w") as file:
        for key, value in datasets.items():
            file[key] = value
    return path


def test_hdf5_is_read_by_layer_name_slashes_and_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = build(IP)
    weight, bias = np.ones((2, 12), np.float32), floats([3, 4])
    path = h5_of(tmp_path, {"data/a/ip/0": weight, "data/a/ip/1": bias, "data/a/other/0": bias})
    with caplog.at_level(logging.INFO):
        weights.load(net, path)
    assert values(net, "a/ip") == lists(weight, bias)
    assert "Ignoring source layers that the net lacks: a/other" in caplog.text


def test_what_is_written_as_hdf5_is_read_again(tmp_path: Path) -> None:
    first, second = build(IP), build(IP)
    first.layer("a/ip").blobs[0].data.plain_overwrite()[...] = 5
    hdf5.write(tmp_path / "net.caffemodel.h5", weights.hdf5_of(weights.copy_of(first)))
    weights.load(second, tmp_path / "net.caffemodel.h5")
    assert values(second, "a/ip") == values(first, "a/ip")


@pytest.mark.parametrize(
    ("datasets", "told"),
    [
        ({"0": np.ones((3, 12), np.float32)}, r"blob 0 must be \(2, 12\), got \(3, 12\); rename the layer"),
        ({"0": np.ones((2, 12), np.float32)}, r"blob 1 must be \(2,\), got none"),
        ({"2": np.ones(1, np.float32)}, "the number of blobs must be 2, got 3"),
        ({"0": np.ones((2, 12), np.int32)}, "data/a/ip/0 must hold floating-point values"),
    ],
)
def test_hdf5_that_does_not_fit_is_refused(datasets: dict[str, Array], told: str, tmp_path: Path) -> None:
    path = h5_of(tmp_path, {f"data/a/ip/{key}": value for key, value in datasets.items()})
    with pytest.raises(WeightsError, match=told):
        weights.load(build(IP), path)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.caffemodel.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(WeightsError, match="must be a whole HDF5 file"):
        weights.load(build(IP), tmp_path / "net.caffemodel.h5")


def test_a_later_file_goes_over_an_earlier_one(tmp_path: Path) -> None:
    net = build(IP, norm())
    ip = [np.ones((2, 12), np.float32), floats([1, 2])]
    both = stored(("a/ip", "InnerProduct", "ip", ip), ("bn", "BatchNorm", "bn", [MEAN, VARIANCE, FACTOR]))
    write_binary(tmp_path / "both.caffemodel", both)
    later = h5_of(tmp_path, {"data/a/ip/0": 2 * ip[0], "data/a/ip/1": ip[1]})
    for path in (tmp_path / "both.caffemodel", later):
        weights.load(net, path)
    assert values(net, "a/ip") == lists(2 * ip[0], ip[1])
    assert values(net, "bn") == lists(MEAN, VARIANCE, FACTOR)
