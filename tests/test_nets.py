"""Whole nets give the shapes, activations and outputs that BVLC Caffe computed."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.plan import Plan
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.shared import shared_path

Values = NDArray[np.float32]

RTOL = ATOL = 1e-4

NAMES = (
    "examples_mnist_lenet",
    "examples_cifar10_cifar10_quick",
    "examples_cifar10_cifar10_full",
    "examples_siamese_mnist_siamese",
    "models_bvlc_reference_caffenet_deploy",
    "models_bvlc_googlenet_deploy",
)


@dataclass
class GoldenNet:
    """One deploy net of golden/nets.npz: its text, its input, and what came out of every blob."""

    text: str = ""
    arrays: dict[str, dict[str, Values]] = field(default_factory=dict)

    def of(self, kind: str) -> dict[str, Values]:
        return self.arrays.get(kind, {})


@functools.cache
def golden_nets() -> dict[str, GoldenNet]:
    """All nets by name; a parameter's key is LAYER|J."""
    found: dict[str, GoldenNet] = {}
    with np.load(shared_path("golden", "nets.npz")) as stored:
        for key in stored.files:
            name, kind, what = key.split("|", 2)
            net = found.setdefault(name, GoldenNet())
            if kind == "prototxt":
                net.text = str(stored[key])
            else:
                net.arrays.setdefault(kind, {})[what] = stored[key]
    return found


def draw(layer_name: str, layer_type: str, index: int, shape: tuple[int, ...]) -> Values:
    """The values that golden/README.md gives to parameter `index` of a layer."""
    rng = np.random.default_rng(zlib.crc32(f"{layer_name}/{index}".encode()))
    if layer_type == "BatchNorm" and index == 2:
        values = np.ones(shape)
    elif layer_type == "BatchNorm":
        values = rng.random(shape) + 0.5 if index else rng.standard_normal(shape) * 0.1
    elif layer_type == "Scale":
        values = (index == 0) + rng.standard_normal(shape) * 0.1
    elif layer_type == "PReLU":
        values = np.full(shape, 0.25)
    else:
        spread = float(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 0.05
        values = rng.standard_normal(shape) * spread
    return values.astype(np.float32)


@functools.lru_cache(maxsize=1)  # the variants of one net follow each other
def params_of(name: str) -> dict[tuple[str, int], Values]:
    """All parameters of a golden net by layer and index."""
    golden = golden_nets()[name]
    types = {layer.name: layer.type for layer in spec_of(golden).layer}
    drawn = {}
    for key, shape in golden.of("param_shape").items():
        layer, index = key.rsplit("|", 1)
        drawn[layer, int(index)] = draw(layer, types[layer], int(index), tuple(int(n) for n in shape))
    return drawn


def spec_of(golden: GoldenNet) -> pb.NetParameter:
    param = pb.NetParameter()
    text.parse(golden.text, param)
    return param


def build(name: str, backend: CpuBackend, plan: Plan | None = None) -> Net:
    """The net with its parameters and its input, reshaped to the one image of it; everything else NaN."""
    golden = golden_nets()[name]
    net = Net(spec_of(golden), Scope(backend, pb.TEST), plan=plan)
    for (layer, index), values in params_of(name).items():
        net.layer(layer).blobs[index].data.plain_overwrite()[...] = values
    for input_name, image in golden.of("in").items():
        net.blob(input_name).reshape(image.shape)
    net.reshape()
    for name_of_blob, blob in net.blobs.items():
        blob.data.plain_overwrite()[...] = golden.of("in").get(name_of_blob, np.float32(np.nan))
    return net


def assert_matches(net: Net, golden: GoldenNet) -> None:
    """All of Caffe's blobs: shape, root mean square; and the outputs element by element."""
    shapes = {name: tuple(int(n) for n in shape) for name, shape in golden.of("blob_shape").items()}
    assert {name: net.blob(name).shape for name in shapes} == shapes
    params = {f"{layer.name}|{j}": blob.shape for layer in net.layers for j, blob in enumerate(layer.blobs)}
    assert params == {key: tuple(int(n) for n in shape) for key, shape in golden.of("param_shape").items()}
    for name, expected in golden.of("blob_l2").items():
        got = np.sqrt(np.mean(np.square(net.blob(name).data.plain(), dtype=np.float64)))
        np.testing.assert_allclose(got, expected, RTOL, ATOL, err_msg=name)
    assert golden.of("out")
    for name, expected in golden.of("out").items():
        np.testing.assert_allclose(net.blob(name).data.plain(), expected, RTOL, ATOL, err_msg=name)


def test_all_nets_that_caffe_ran_are_compared() -> None:
    assert set(golden_nets()) == set(NAMES)


@pytest.mark.parametrize("variant", ["DEFAULT", "CAFFE", "planned blocked", "planned channels_last"])
@pytest.mark.parametrize("name", NAMES)
def test_a_net_gives_the_numbers_of_caffe(name: str, variant: str) -> None:
    if variant.startswith("planned"):
        memory_format = variant.split()[1]
        net = build(name, CpuBackend(memory_format=memory_format), Plan(memory_format=memory_format))
    else:
        net = build(name, CpuBackend(engine=variant))
    for _ in range(2):  # the second pass reads what the first one left in native layouts
        net.forward()
    assert_matches(net, golden_nets()[name])
