"""Wrong uses of elementwise layers and of layers that move values are told by field, rule and value."""

from __future__ import annotations

import re

import numpy as np
import pytest

from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

Shape = tuple[int, ...]

IMAGES = (2, 4, 6, 5)


def build(layer: str, shapes: list[Shape], tops: str = "y") -> Net:
    """The layer, "l", in line len(shapes) + 1 of a file and the rest of it in the next line."""
    lines = []
    for i, shape in enumerate(shapes):
        dims = " ".join(f"dim: {extent}" for extent in shape)
        lines.append(
            f'layer {{ name: "i{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}'
        )
    names = " ".join(f'bottom: "x{i}"' for i in range(len(shapes)))
    names += " " + " ".join(f'top: "{name}"' for name in tops.split())
    lines += [f'layer {{ name: "l" {names}', f"{layer} }}"]
    param = pb.NetParameter()
    source = text.parse("\n".join(lines), param, "net.prototxt")
    return Net(param, Scope(CpuBackend(engine="CAFFE"), pb.TRAIN), source=source)


WRONG: list[tuple[str, list[Shape], str, str]] = [
    # Concat, Slice
    ('type: "Concat" concat_param { axis: 4 }', [IMAGES, IMAGES], "y", "axis must be in [-4, 4), got 4"),
    (
        'type: "Concat"',
        [IMAGES, (2, 1, 6, 4)],
        "y",
        "bottom[1] must have the shape of bottom[0] (2, 4, 6, 5) except at axis 1, got (2, 1, 6, 4)",
    ),
    ('type: "Concat"', [IMAGES, (2, 4)], "y", "except at axis 1, got (2, 4)"),
    (
        'type: "Concat" concat_param { axis: 1 concat_dim: 1 }',
        [IMAGES, IMAGES],
        "y",
        "concat_dim must be absent where axis is given, got both",
    ),
    ('type: "Slice"', [IMAGES], "a b c", "the sliced axis must be a multiple of the 3 tops, got 4"),
    (
        'type: "Slice" slice_param { slice_point: 1 }',
        [IMAGES],
        "a b c",
        "slice_point must be given 2 times, one less than the tops, or not at all, got 1 times",
    ),
    (
        'type: "Slice" slice_param { slice_point: [3, 1] }',
        [IMAGES],
        "a b c",
        "slice_point must be rising, above 0 and below the axis (4), got [3, 1]",
    ),
    ('type: "Slice" slice_param { slice_point: 4 }', [IMAGES], "a b", "below the axis (4), got [4]"),
    ('type: "Slice" slice_param { axis: 1 slice_dim: 1 }', [IMAGES], "a b", "slice_dim must be absent"),
    # Eltwise
    (
        'type: "Eltwise"',
        [IMAGES, (2, 4)],
        "y",
        "bottom[1] must have the shape of bottom[0] (2, 4, 6, 5), got (2, 4)",
    ),
    (
        'type: "Eltwise" eltwise_param { coeff: 1 }',
        [IMAGES, IMAGES],
        "y",
        "coeff must be given 2 times, once for each bottom, or not at all, got 1 times",
    ),
    (
        'type: "Eltwise" eltwise_param { operation: PROD coeff: [1, 2] }',
        [IMAGES, IMAGES],
        "y",
        "coeff must be absent unless operation is SUM, got [1.0, 2.0]",
    ),
    ('type: "Eltwise"', [IMAGES], "y", "the number of bottoms must be at least 2, got 1"),
    # one number in, one out
    ('type: "Clip" clip_param { min: 2 max: 1 }', [IMAGES], "y", "min must be at most max (1), got 2"),
    ('type: "Clip"', [IMAGES], "y", "min must be given, got none"),
    ('type: "Exp" exp_param { base: 0 }', [IMAGES], "y", "base must be positive, or -1 for e, got 0"),
    (
        'type: "Log" log_param { base: 1 }',
        [IMAGES],
        "y",
        "base must be positive and not 1, or -1 for e, got 1",
    ),
    (
        'type: "Dropout" dropout_param { dropout_ratio: 1 }',
        [IMAGES],
        "y",
        "dropout_ratio must be at least 0 and less than 1, got 1",
    ),
    ('type: "Dropout" dropout_param { random_seed: -3 }', [IMAGES], "y", "random_seed must be at least 0"),
    ('type: "PReLU"', [(3,)], "y", "bottom[0] must have at least 2 axes (N, C, ...), got (3,)"),
    # Scale, Bias
    (
        'type: "Scale" scale_param { num_axes: 4 }',
        [IMAGES],
        "y",
        "num_axes must be in [-1, 3], the axes of bottom[0] (2, 4, 6, 5) from axis 1 on, got 4",
    ),
    ('type: "Scale" scale_param { axis: 5 }', [IMAGES], "y", "axis must be in [-4, 4), got 5"),
    (
        'type: "Scale"',
        [IMAGES, (4, 5)],
        "y",
        "bottom[1] must have the shape of bottom[0] (2, 4, 6, 5) from axis 1 on, got (4, 5)",
    ),
    ('type: "Scale"', [IMAGES, (4, 6, 5, 1)], "y", "from axis 1 on, got (4, 6, 5, 1)"),
    ('type: "Bias" bias_param { num_axes: -2 }', [IMAGES], "y", "num_axes must be in [-1, 3]"),
    ('type: "Bias"', [IMAGES, (5,)], "y", "from axis 1 on, got (5,)"),
    # shapes
    (
        'type: "Flatten" flatten_param { axis: 2 end_axis: 1 }',
        [IMAGES],
        "y",
        "end_axis must be at least axis (2)",
    ),
    ('type: "Flatten" flatten_param { axis: -5 }', [IMAGES], "y", "axis must be in [-4, 4), got -5"),
    (
        'type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }',
        [IMAGES],
        "y",
        "shape must be positive, 0 to copy, or -1 at most once to infer, got [-1, -1]",
    ),
    (
        'type: "Reshape" reshape_param { shape { dim: -2 } }',
        [IMAGES],
        "y",
        "-1 at most once to infer, got [-2]",
    ),
    (
        'type: "Reshape" reshape_param { shape { dim: 7 dim: -1 } }',
        [IMAGES],
        "y",
        "such that its other dims divide the 240 values of bottom[0] (2, 4, 6, 5), got [7, -1]",
    ),
    (
        'type: "Reshape" reshape_param { shape { dim: 0 dim: 7 } }',
        [IMAGES],
        "y",
        "shape must be of as many values as bottom[0] (2, 4, 6, 5) (240), got 14 (2, 7)",
    ),
    (
        'type: "Reshape" reshape_param { axis: 3 shape { dim: 5 dim: 0 } }',
        [IMAGES],
        "y",
        "without a 0 beyond the axes of bottom[0] (2, 4, 6, 5), got [5, 0]",
    ),
    ('type: "Reshape" reshape_param { axis: 5 }', [IMAGES], "y", "axis must be in [-5, 4], got 5"),
    (
        'type: "Reshape" reshape_param { axis: 2 num_axes: 3 }',
        [IMAGES],
        "y",
        "num_axes must be at most the 2 axes",
    ),
    ('type: "Reshape" reshape_param { num_axes: -2 }', [IMAGES], "y", "num_axes must be at least 0, or -1"),
    ('type: "Reshape" reshape_param { pixelshuffler: 2 }', [IMAGES], "y", "pixelshuffler must be 1, got 2"),
    ('type: "Tile"', [IMAGES], "y", "tiles must be at least 1, got 0"),
    ('type: "Tile" tile_param { axis: 4 tiles: 2 }', [IMAGES], "y", "axis must be in [-4, 4), got 4"),
    ('type: "Reduction" reduction_param { axis: 4 }', [IMAGES], "y", "axis must be in [-4, 4), got 4"),
    ('type: "ArgMax" argmax_param { top_k: 0 }', [IMAGES], "y", "top_k must be in [1, 120]"),
    ('type: "ArgMax" argmax_param { top_k: 5 axis: 1 }', [IMAGES], "y", "top_k must be in [1, 4]"),
    ('type: "BatchReindex"', [IMAGES, (3, 1)], "y", "bottom[1] (indices) must have 1 axis, got (3, 1)"),
    (
        'type: "Filter"',
        [IMAGES, (3,)],
        "y",
        "bottom[0] must have 3 images like the selector, got (2, 4, 6, 5)",
    ),
    (
        'type: "Filter"',
        [IMAGES, (2, 3)],
        "y",
        "bottom[1] (the selector) must have one value an image (N, 1...), got (2, 3)",
    ),
    (
        'type: "Filter"',
        [IMAGES, (2,)],
        "y z",
        "the number of tops must be 1, the bottoms without the selector",
    ),
    ('type: "Parameter" parameter_param { shape { dim: 0 } }', [], "y", "shape must be positive, got (0,)"),
    ('type: "Crop"', [IMAGES, (2, 4)], "y", "bottom[1] must have 4 axes like bottom[0], got (2, 4)"),
    (
        'type: "Crop" crop_param { offset: [1, 2, 3] }',
        [IMAGES, (1, 1, 2, 2)],
        "y",
        "offset must be given once or 2 times, for each axis from 2 on, got 3 times",
    ),
    (
        'type: "Crop" crop_param { offset: 4 }',
        [IMAGES, (1, 1, 2, 2)],
        "y",
        "offset must be at most 3 at axis 3, bottom[0] having 5 and bottom[1] 2, got 4",
    ),
    ('type: "Permute" permute_param { order: [1, 1] }', [IMAGES], "y", "order must be distinct axes below 4"),
    ('type: "Permute" permute_param { order: 4 }', [IMAGES], "y", "those of bottom[0], got [4]"),
    (
        'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
        [IMAGES],
        "y",
        "group must be a divisor of the 4 channels of bottom[0], got 3",
    ),
    ('type: "Interp"', [IMAGES], "y", "the size must be given by zoom_factor"),
    ('type: "Interp" interp_param { height: 3 }', [IMAGES], "y", "the size must be given by zoom_factor"),
    ('type: "Interp" interp_param { zoom_factor: 2 }', [IMAGES, IMAGES], "y", "or by interp_param, got both"),
    (
        'type: "Interp" interp_param { zoom_factor: 0 }',
        [IMAGES],
        "y",
        "zoom_factor must be at least 1, got 0",
    ),
    ('type: "Interp" interp_param { zoom_factor: 2 pad_beg: 1 }', [IMAGES], "y", "pad_beg must be at most 0"),
    (
        'type: "Interp" interp_param { zoom_factor: 2 pad_beg: -5 }',
        [IMAGES],
        "y",
        "something is left of bottom[0] 6 x 5",
    ),
    ('type: "Interp" interp_param { zoom_factor: 2 }', [(2, 3)], "y", "4 axes (N, C, H, W), got (2, 3)"),
    (
        'type: "Upsample" upsample_param { scale_h: 2 }',
        [IMAGES],
        "y",
        "scale_h and scale_w must be given together",
    ),
    ('type: "Upsample" upsample_param { scale: 0 }', [IMAGES], "y", "scale must be at least 1, got 0"),
    ('type: "Upsample" upsample_param { pad_out_h: true }', [IMAGES], "y", "must be used with bottom[1]"),
    (
        'type: "Upsample" upsample_param { pad_out_h: true scale: 3 }',
        [IMAGES, IMAGES],
        "y",
        "pad_out_h must be used with scale 2, got scale 3",
    ),
    (
        'type: "Upsample"',
        [IMAGES, (2, 4, 6, 6)],
        "y",
        "bottom[1] (the mask) must have the shape of bottom[0]",
    ),
]


@pytest.mark.parametrize(("layer", "shapes", "tops", "told"), WRONG, ids=[row[3][:60] for row in WRONG])
def test_a_wrong_use_is_told(layer: str, shapes: list[Shape], tops: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(layer, shapes, tops)
    assert told in str(error.value)
    line = len(shapes) + 1
    place = re.match(r'net\.prototxt:(\d+)(:\d+)?: layer "l" \(', str(error.value))
    assert place is not None
    assert int(place[1]) in (line, line + 1)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "AbsVal"',
        'type: "Flatten"',
        'type: "Reshape"',
        'type: "Permute"',
        'type: "ShuffleChannel"',
        'type: "Tile" tile_param { tiles: 1 }',
        'type: "Reduction"',
        'type: "ArgMax"',
        'type: "Slice"',
        'type: "Concat"',
        'type: "Interp" interp_param { zoom_factor: 1 }',
        'type: "Upsample"',
    ],
)
def test_a_layer_that_cannot_run_in_place_says_so(layer: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(layer, [IMAGES], "x0")
    assert "top[0] must be another blob than bottom[0]" in str(error.value)
    assert 'does not run in place, got "x0" for both' in str(error.value)


def test_product_in_place_is_refused() -> None:
    with pytest.raises(ConfigError, match="Eltwise does not run in place"):
        build('type: "Eltwise" eltwise_param { operation: PROD }', [IMAGES, IMAGES], "x0")


@pytest.mark.parametrize(
    ("layer", "shapes", "index"),
    [
        ('type: "Threshold"', [IMAGES], 0),
        ('type: "ArgMax"', [IMAGES], 0),
        ('type: "BatchReindex"', [IMAGES, (3,)], 1),
        ('type: "Filter"', [IMAGES, (2,)], 1),
    ],
)
def test_a_gradient_that_does_not_exist_is_refused(layer: str, shapes: list[Shape], index: int) -> None:
    wanted = " ".join(f"propagate_down: {'true' if i == index else 'false'}" for i in range(len(shapes)))
    net = build(f"{layer} {wanted} loss_weight: 1", shapes)
    for step in net.steps:
        step.needs_backward = True
    net.forward()
    with pytest.raises(ConfigError) as error:
        net.backward(end=len(shapes))
    assert f"bottom[{index}] must not need a gradient" in str(error.value)
    assert f'got propagate_down: true for "x{index}"; write propagate_down: false' in str(error.value)


def test_an_index_that_is_no_row_is_told() -> None:
    net = build('type: "BatchReindex"', [(3, 2), (4,)])
    for wrong in (3, -1):
        net.blob("x1").data.plain_overwrite()[...] = [0, 2, wrong, 1]
        with pytest.raises(DataError) as error:
            net.forward()
        assert f"index of row 2 must be in [0, 3), got {wrong}" in str(error.value)
        assert 'layer "l" (BatchReindex)' in str(error.value)


def test_a_mask_that_points_outside_is_told() -> None:
    net = build('type: "Upsample"', [(1, 1, 2, 2), (1, 1, 2, 2)])
    net.blob("x1").data.plain_overwrite()[...] = np.array([[0, 1], [2, 16]])
    with pytest.raises(DataError, match="the mask must point into the top's 4 x 4 plane, got 16"):
        net.forward()


def test_channels_of_a_learned_slope_stay_those_of_set_up() -> None:
    net = build('type: "PReLU"', [IMAGES])
    net.blob("x0").reshape((2, 3, 6, 5))
    with pytest.raises(ConfigError, match="4 channels as at set-up, got \\(2, 3, 6, 5\\)"):
        net.forward()


def test_a_scale_by_a_bottom_keeps_the_shape_of_its_bias() -> None:
    net = build('type: "Scale" scale_param { bias_term: true }', [IMAGES, (4,)])
    net.blob("x1").reshape((4, 6))
    with pytest.raises(ConfigError, match="the shape \\(4,\\) of set-up, got \\(4, 6\\)"):
        net.forward()
