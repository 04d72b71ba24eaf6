"""Elementwise layers between convolutions give the same values whatever layouts the convolutions choose."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

BETWEEN = {
    "Concat": 'type: "Concat" bottom: "a" bottom: "b"',
    "Concat of one": 'type: "Concat" bottom: "a"',
    "Slice of one": 'type: "Slice" bottom: "a"',
    "Eltwise SUM": 'type: "Eltwise" bottom: "a" bottom: "b" eltwise_param { coeff: [2, -1] }',
    "Eltwise PROD": 'type: "Eltwise" bottom: "a" bottom: "b" eltwise_param { operation: PROD }',
    "Eltwise MAX": 'type: "Eltwise" bottom: "a" bottom: "b" eltwise_param { operation: MAX }',
    "Sigmoid": 'type: "Sigmoid" bottom: "a"',
    "TanH": 'type: "TanH" bottom: "a"',
    "Dropout": 'type: "Dropout" bottom: "a"',
    "PReLU": 'type: "PReLU" bottom: "a"',
    "Scale": 'type: "Scale" bottom: "a" scale_param { bias_term: true }',
    "Scale by a bottom": 'type: "Scale" bottom: "a" bottom: "b" scale_param { axis: 0 }',
    "Bias": 'type: "Bias" bottom: "a"',
    "Reshape": 'type: "Reshape" bottom: "a" reshape_param { shape { dim: 0 dim: 8 dim: -1 dim: 3 } }',
    "Tile": 'type: "Tile" bottom: "a" tile_param { tiles: 2 }',
    "Crop": 'type: "Crop" bottom: "a" bottom: "b" crop_param { axis: 2 }',
    "Permute": 'type: "Permute" bottom: "a" permute_param { order: [0, 2, 1, 3] }',
    "Interp": 'type: "Interp" bottom: "a" interp_param { zoom_factor: 2 }',
    "ShuffleChannel": 'type: "ShuffleChannel" bottom: "a" shuffle_channel_param { group: 4 }',
    "Parameter": 'type: "Parameter" parameter_param { shape { dim: [2, 16, 6, 6] } }',
}

CONVOLUTION = (
    'layer {{ name: "{top}" type: "Convolution" bottom: "{bottom}" top: "{top}" convolution_param {{ '
    'num_output: 16 kernel_size: 3 pad: 1 weight_filler {{ type: "xavier" }} }} }}'
)


def run(engine: str, between: str, top: str) -> dict[str, np.ndarray]:
    param = pb.NetParameter(force_backward=True)
    text.parse(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: [2, 16, 6, 6] } } }'
        + CONVOLUTION.format(bottom="x", top="a")
        + CONVOLUTION.format(bottom="x", top="b")
        + f'layer {{ name: "layer" {between} top: "{top}" }}'
        + CONVOLUTION.format(bottom=top, top="z"),
        param,
    )
    net = Net(param, Scope(CpuBackend(engine=engine), pb.TRAIN, rng=np.random.default_rng(1)))
    rng = np.random.default_rng(2)
    for _ in range(2):
        net.blob("x").data.plain_overwrite()[...] = rng.standard_normal((2, 16, 6, 6))
        net.forward()
        z = net.blob("z")
        z.diff.plain_overwrite()[...] = rng.standard_normal(z.shape)
        net.clear_param_diffs()
        net.backward()
    found = {"z": z.data.plain().copy(), "dx": net.blob("x").diff.plain().copy()}
    for owned in net.params.owned:
        found[owned.label] = owned.blob.diff.plain().copy()
    return found


@pytest.mark.parametrize("row", BETWEEN)
def test_a_layer_between_convolutions_does_not_depend_on_the_engine(row: str) -> None:
    expected, got = (run(engine, BETWEEN[row], "y") for engine in ("CAFFE", "DEFAULT"))
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    "row", ["Eltwise SUM", "Sigmoid", "TanH", "Dropout", "PReLU", "Scale", "Scale by a bottom", "Bias"]
)
def test_a_layer_in_place_between_convolutions_does_not_depend_on_the_engine(row: str) -> None:
    expected, got = (run(engine, BETWEEN[row], "a") for engine in ("CAFFE", "DEFAULT"))
    for name, values in expected.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-4, atol=1e-4, err_msg=name)
