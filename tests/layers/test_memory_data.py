"""MemoryData serves a script's arrays batch by batch."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.layers.memory_data import MemoryData
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text


def build(param_text: str = "batch_size: 2 channels: 3 height: 4 width: 5") -> tuple[Net, MemoryData]:
    param = pb.NetParameter(name="net")
    text.parse(
        'layer { name: "memory" type: "MemoryData" top: "data" top: "label" '
        f"memory_data_param {{ {param_text} }} }}",
        param,
    )
    net = Net(param, Scope(CpuBackend(), pb.TEST))
    layer = net.layer("memory")
    assert isinstance(layer, MemoryData)
    return net, layer


def test_batches_follow_each_other_and_start_again() -> None:
    net, layer = build()
    data = np.random.default_rng(0).random((6, 3, 4, 5), np.float32)
    layer.reset(data, np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1))
    for start in (0, 2, 4, 0):
        net.forward()
        np.testing.assert_array_equal(net.blob("data").data.plain(), data[start : start + 2])
        np.testing.assert_array_equal(net.blob("label").data.plain(), [start, start + 1])
    assert layer.position() == 8
    layer.seek(4)
    net.forward()
    np.testing.assert_array_equal(net.blob("label").data.plain(), [4, 5])
    layer.reset(data[:2], np.array([7, 8]))
    net.forward()
    np.testing.assert_array_equal(net.blob("label").data.plain(), [7, 8])


def test_a_pass_without_arrays_says_what_to_do() -> None:
    net, _ = build()
    with pytest.raises(DataError, match=r"arrays must be given before the first forward pass, got none"):
        net.forward()


def test_arrays_of_the_wrong_shape_are_named() -> None:
    _, layer = build()
    with pytest.raises(ConfigError, match=r"data must have shape \(n, 3, 4, 5\) with n a multiple of"):
        layer.reset(np.zeros((3, 3, 4, 5)), np.zeros(3))
    with pytest.raises(ConfigError, match=r"data must have shape .*, got \(2, 3, 5, 4\)"):
        layer.reset(np.zeros((2, 3, 5, 4)), np.zeros(2))
    with pytest.raises(ConfigError, match=r"labels must have one value for each of the 2 images"):
        layer.reset(np.zeros((2, 3, 4, 5)), np.zeros(3))
    with pytest.raises(ConfigError, match=r"height must be at least 1, got 0"):
        build("batch_size: 2 channels: 3 width: 5")
