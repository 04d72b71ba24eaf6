"""Wrong uses of windows, normalisations and recurrences are told by field, rule and value."""

from __future__ import annotations

import re

import pytest

from dtrain.errors import ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

IMAGES = (2, 4, 6, 6)
STEPS = (3, 2, 5)


def build(type_name: str, rest: str, *shapes: tuple[int, ...], tops: str = "y") -> None:
    param = pb.NetParameter(name="net")
    names = []
    for i, shape in enumerate(shapes):
        names.append(f"x{i}")
        layer = param.layer.add(name=f"input{i}", type="Input", top=[f"x{i}"])
        layer.input_param.shape.add(dim=shape)
    bottoms = " ".join(f'bottom: "{name}"' for name in names)
    tops = " ".join(f'top: "{name}"' for name in tops.split())
    rest_of_net = pb.NetParameter()
    text.parse(f'layer {{ name: "l" type: "{type_name}" {bottoms} {tops} {rest} }}', rest_of_net)
    param.MergeFrom(rest_of_net)
    Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN))


CONVOLUTION = [
    ("num_output: 2", IMAGES, "kernel_size must be at least 1, got (0, 0)"),
    ("kernel_size: 3", IMAGES, "num_output must be a positive multiple of group (1), got 0"),
    (
        "num_output: 2 kernel_size: 3 kernel_h: 3",
        IMAGES,
        "kernel_size must be given as kernel_h and kernel_w or as kernel_size, got both",
    ),
    (
        "num_output: 2 kernel_h: 3 kernel_w: 3",
        (2, 4, 6),
        "kernel_h must be given for 2-D images only, got 1-D",
    ),
    (
        "num_output: 2 kernel_size: 3 pad: 1 pad: 1 pad: 1",
        IMAGES,
        "pad must be given once or 2 times, got 3 times",
    ),
    ("num_output: 2 kernel_size: 3 stride: 0", IMAGES, "stride must be at least 1, got (0, 0)"),
    ("num_output: 2 kernel_size: 3 dilation: 0", IMAGES, "dilation must be at least 1, got (0, 0)"),
    (
        "num_output: 2 kernel_size: 3 group: 3",
        IMAGES,
        "group must be a divisor of the 4 channels of bottom[0], got 3",
    ),
    (
        "num_output: 3 kernel_size: 3 group: 2",
        IMAGES,
        "num_output must be a positive multiple of group (2), got 3",
    ),
    ("num_output: 2 kernel_size: 3 axis: 4", IMAGES, "axis must be in [-4, 4), got 4"),
    (
        "num_output: 2 kernel_size: 3 relu: true",
        IMAGES,
        "relu must be false; put a ReLU layer behind, got true",
    ),
]


@pytest.mark.parametrize("type_name", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize(("param", "shape", "message"), CONVOLUTION)
def test_convolutions_name_the_wrong_field(
    type_name: str, param: str, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'net: layer "l" ({type_name}): {message}')):
        build(type_name, f"convolution_param {{ {param} }}", shape)


ROWS = [
    (
        "Convolution",
        "convolution_param { num_output: 2 kernel_size: 7 }",
        [IMAGES],
        "the output must have at least 1 position on every axis, got (0, 0) from bottom[0] (2, 4, 6, 6)",
    ),
    (
        "Deconvolution",
        "convolution_param { num_output: 2 kernel_size: 3 pad: 4 }",
        [IMAGES],
        "the output must have at least 1 position on every axis, got (0, 0)",
    ),
    (
        "DepthwiseConvolution",
        "convolution_param { num_output: 4 kernel_size: 3 group: 2 }",
        [IMAGES],
        "group must be absent or the number of channels of bottom[0] (4), got 2",
    ),
    (
        "DepthwiseConvolution",
        "convolution_param { num_output: 6 kernel_size: 3 }",
        [IMAGES],
        "num_output must be a positive multiple of group (4), got 6",
    ),
    (
        "Im2col",
        "convolution_param { kernel_size: 9 }",
        [IMAGES],
        "kernel_size must be at most the padded image of bottom[0] (2, 4, 6, 6), got (9, 9)",
    ),
    (
        "Im2col",
        "convolution_param { kernel_size: 1 }",
        [(3, 4)],
        "bottom[0] must have at least 1 spatial axis behind axis 1, got (3, 4)",
    ),
    ("LRN", "lrn_param { local_size: 4 }", [IMAGES], "local_size must be odd, got 4"),
    ("LRN", "", [(3, 4)], "bottom[0] must have 4 axes (N, C, H, W), got (3, 4)"),
    (
        "BatchNorm",
        "param { lr_mult: 1 }",
        [IMAGES],
        "lr_mult must be 0 for mean, variance and factor, got 1.0",
    ),
    (
        "BatchNorm",
        "batch_norm_param { relu: true }",
        [IMAGES],
        "relu must be false; put a ReLU layer behind, got true",
    ),
    ("BatchNorm", "batch_norm_param { stats_batch_size: 8 }", [IMAGES], "stats_batch_size must be 0"),
    ("MVN", "", [(2, 3, 4, 5, 6)], "bottom[0] must have at most 4 axes (N, C, H, W), got (2, 3, 4, 5, 6)"),
    ("SPP", "", [IMAGES], "pyramid_height must be at least 1, got 0"),
    (
        "SPP",
        "spp_param { pyramid_height: 4 }",
        [IMAGES],
        "pyramid_height must be low enough for an image of (6, 6), got 4",
    ),
    (
        "SPP",
        "spp_param { pyramid_height: 3 pool: STOCHASTIC }",
        [IMAGES],
        "bottom[0] must have height and width divisible by 4 for pool STOCHASTIC, got (6, 6)",
    ),
    (
        "Pooling",
        "pooling_param { kernel_size: 2 pad: 2 }",
        [IMAGES],
        "pad must be less than kernel_size (2, 2), got (2, 2)",
    ),
    (
        "Pooling",
        "pooling_param { kernel_size: 3 pad: 1 pool: STOCHASTIC }",
        [IMAGES],
        "pad must be 0 for pool STOCHASTIC, got (1, 1)",
    ),
    (
        "Pooling",
        "pooling_param { global_pooling: true kernel_size: 2 }",
        [IMAGES],
        "kernel_size must be absent with global_pooling, got one",
    ),
    (
        "Pooling",
        "pooling_param { global_pooling: true pad: 1 }",
        [IMAGES],
        "global_pooling must be used with pad 0 and stride 1, got pad (1, 1), stride (1, 1)",
    ),
    ("Pooling", "pooling_param { kernel_size: 2 axis: 2 }", [IMAGES], "axis must be 1, got 2"),
    (
        "Pooling",
        "pooling_param { kernel_size: 2 avg_include_pad: false }",
        [IMAGES],
        "avg_include_pad must be true, as in Caffe, got false",
    ),
    (
        "Pooling",
        "pooling_param { kernel_size_3d: 2 kernel_size_3d: 2 kernel_size_3d: 2 }",
        [IMAGES],
        "kernel_size_3d must be absent: pooling is 2-D, got [2, 2, 2]",
    ),
    ("LSTM", "", [STEPS, (3, 2)], "num_output must be at least 1, got 0"),
    (
        "LSTM",
        "recurrent_param { num_output: 4 }",
        [STEPS, (2, 3)],
        "bottom[1] (cont) must have shape (3, 2), as bottom[0], got (2, 3)",
    ),
    (
        "LSTM",
        "recurrent_param { num_output: 4 }",
        [STEPS, (3, 2), (3, 7)],
        "bottom[2] (x_static) must have 2 streams on axis 0, got (3, 7)",
    ),
    (
        "LSTM",
        "recurrent_param { num_output: 4 }",
        [STEPS, (3, 2), (2, 7), (2, 7)],
        "the bottoms must be x, cont, x_static or not (2 or 3), got 4",
    ),
    (
        "LSTM",
        "recurrent_param { num_output: 4 expose_hidden: true }",
        [STEPS, (3, 2)],
        "the bottoms must be x, cont, x_static or not, h_0, c_0 (4 or 5), got 2",
    ),
    (
        "RNN",
        "recurrent_param { num_output: 4 expose_hidden: true }",
        [STEPS, (3, 2), (1, 2, 4)],
        "the number of tops must be 2 with 1 exposed states, got 1",
    ),
    ("RNN", "recurrent_param { num_output: 4 }", [(3,), (3,)], "bottom[0] must have at least 2 axes"),
]


@pytest.mark.parametrize(("type_name", "rest", "shapes", "message"), ROWS)
def test_layers_name_the_wrong_field(
    type_name: str, rest: str, shapes: list[tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f'net: layer "l" ({type_name}): {message}')):
        build(type_name, rest, *shapes)


def test_states_of_the_wrong_shape_are_named() -> None:
    with pytest.raises(ConfigError, match=re.escape("bottom[2] (a state) must have shape (1, 2, 4)")):
        build(
            "RNN",
            "recurrent_param { num_output: 4 expose_hidden: true }",
            STEPS,
            (3, 2),
            (2, 4),
            tops="y h",
        )


def test_lstm_unit_names_the_gates_of_the_wrong_shape() -> None:
    with pytest.raises(ConfigError, match=re.escape("bottom[1] (gates) must have shape (1, 2, 12), got")):
        build("LSTMUnit", "", (1, 2, 3), (1, 2, 9), (1, 2), tops="c h")


@pytest.mark.parametrize(
    ("type_name", "rest"),
    [
        ("LRN", ""),
        ("Pooling", "pooling_param { kernel_size: 1 }"),
        ("SPP", "spp_param { pyramid_height: 1 }"),
        ("Im2col", "convolution_param { kernel_size: 1 }"),
        ("Convolution", "convolution_param { num_output: 4 kernel_size: 1 }"),
    ],
)
def test_layers_that_cannot_run_in_place_say_so(type_name: str, rest: str) -> None:
    with pytest.raises(ConfigError, match=re.escape("top[0] must be another blob than bottom[0]")):
        build(type_name, rest, IMAGES, tops="x0")


def test_a_second_top_is_for_the_argmax_of_a_maximum() -> None:
    with pytest.raises(ConfigError, match=re.escape("a second top (the argmax) must have pool MAX, got AVE")):
        build("Pooling", "pooling_param { kernel_size: 2 pool: AVE }", IMAGES, tops="y z")
