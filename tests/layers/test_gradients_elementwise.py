"""Elementwise layers and layers that move values: backward against differences of forward."""

from __future__ import annotations

import numpy as np
import pytest

from tests.layers.gradient import Values, build_net, check_gradient


def normal(*shape: int, seed: int = 7) -> Values:
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape: int, seed: int = 7) -> Values:
    """Values far from each other and from 0, 6 and other kinks at tenths."""
    count = int(np.prod(shape))
    order = np.random.default_rng(seed).permutation(count).reshape(shape)
    return (order - count // 2) * 0.1 + 0.043 + 0.003 * (seed % 7)


def positive(*shape: int) -> Values:
    return np.random.default_rng(7).uniform(0.5, 2, shape)


def layer(type_name: str, rest: str = "", bottoms: str = "x", tops: str = "y") -> str:
    names = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    names += " " + " ".join(f'top: "{name}"' for name in tops.split())
    return f'layer {{ name: "layer" type: "{type_name}" {names} {rest} }}'


GAUSS = 'filler { type: "gaussian" std: 1 }'

IN_PLACE = {
    "Sigmoid": ("Sigmoid", "", normal(3, 4)),
    "TanH": ("TanH", "", normal(3, 4)),
    "BNLL": ("BNLL", "", 3 * normal(3, 4)),
    "Clip": ("Clip", "clip_param { min: -0.5 max: 0.5 }", distinct(3, 4)),
    "ELU": ("ELU", "elu_param { alpha: 0.7 }", distinct(3, 4)),
    "ELU with lambda": ("ELU", "elu_param { alpha: 1.67 lambda: 1.05 }", distinct(3, 4)),
    "ELU with negative alpha": ("ELU", "elu_param { alpha: -0.5 }", distinct(3, 4)),
    "ReLU6": ("ReLU6", "", distinct(15, 10)),
    "Exp": ("Exp", "", normal(3, 4)),
    "Exp, base 2": ("Exp", "exp_param { base: 2 scale: -0.5 shift: 0.3 }", normal(3, 4)),
    "Log": ("Log", "", positive(3, 4)),
    "Log, base 10": ("Log", "log_param { base: 10 scale: 0.5 shift: 0.2 }", positive(3, 4)),
    "Power": ("Power", "power_param { power: 2 scale: -0.7 shift: 3 }", normal(3, 4)),
    "Power of 1": ("Power", "power_param { scale: -0.7 shift: 3 }", normal(3, 4)),
    "Power of 0": ("Power", "power_param { power: 0 shift: 3 }", normal(3, 4)),
    "Power, fraction": ("Power", "power_param { power: -0.5 shift: 0.1 }", positive(3, 4)),
    "Swish": ("Swish", "swish_param { beta: 1.5 }", normal(3, 4)),
    "PReLU": ("PReLU", "prelu_param { filler { type: 'uniform' min: 0.1 max: 0.4 } }", distinct(2, 3, 4)),
    "PReLU of vectors": ("PReLU", "", distinct(3, 4)),
    "PReLU, shared": ("PReLU", "prelu_param { channel_shared: true }", distinct(2, 3, 2, 2)),
    "Scale": ("Scale", f"scale_param {{ {GAUSS} }}", normal(2, 3, 4)),
    "Scale and bias": ("Scale", f"scale_param {{ bias_term: true {GAUSS} }}", normal(2, 3, 2, 2)),
    "Scale, two axes": ("Scale", f"scale_param {{ num_axes: 2 {GAUSS} }}", normal(2, 3, 4, 2)),
    "Scale, last axes": ("Scale", f"scale_param {{ axis: -2 num_axes: -1 {GAUSS} }}", normal(2, 3, 4)),
    "Scale, scalar": ("Scale", "scale_param { num_axes: 0 bias_term: true }", normal(2, 3)),
    "Bias": ("Bias", f"bias_param {{ {GAUSS} }}", normal(2, 3, 4)),
    "Bias, all axes": ("Bias", f"bias_param {{ axis: 0 num_axes: -1 {GAUSS} }}", normal(2, 3)),
    "Dropout": ("Dropout", "dropout_param { dropout_ratio: 0.3 }", normal(5, 7)),
}

NOT_IN_PLACE = {
    "AbsVal": ("AbsVal", "", distinct(3, 4)),
    "Flatten": ("Flatten", "flatten_param { axis: 1 end_axis: 2 }", normal(2, 3, 4, 2)),
    "Flatten of vectors": ("Flatten", "", normal(2, 3)),
    "Reshape": ("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 2 } }", normal(2, 3, 4)),
    "Tile": ("Tile", "tile_param { axis: 1 tiles: 3 }", normal(2, 3, 4)),
    "Reduction SUM": ("Reduction", "reduction_param { axis: 1 coeff: -0.6 }", normal(2, 3, 4)),
    "Reduction ASUM": ("Reduction", "reduction_param { operation: ASUM axis: 2 }", distinct(2, 3, 4)),
    "Reduction SUMSQ": ("Reduction", "reduction_param { operation: SUMSQ coeff: 3 }", normal(2, 3, 4)),
    "Reduction MEAN": ("Reduction", "reduction_param { operation: MEAN axis: -1 }", normal(2, 3, 4)),
    "Permute": ("Permute", "permute_param { order: 0 order: 2 order: 3 }", normal(2, 3, 4, 5)),
    "ShuffleChannel": ("ShuffleChannel", "shuffle_channel_param { group: 2 }", normal(2, 6, 2, 3)),
    "Interp, zoom": ("Interp", "interp_param { zoom_factor: 3 }", normal(2, 2, 3, 4)),
    "Interp, shrink": ("Interp", "interp_param { shrink_factor: 2 }", normal(2, 2, 5, 7)),
    "Interp, cropped": ("Interp", "interp_param { height: 4 width: 7 pad_beg: -1 }", normal(1, 2, 4, 4)),
    "Interp to one pixel": ("Interp", "interp_param { height: 1 width: 1 }", normal(1, 2, 4, 4)),
    "Upsample": ("Upsample", "upsample_param { scale_h: 2 scale_w: 3 }", normal(2, 2, 3, 2)),
}


@pytest.mark.parametrize("row", [*IN_PLACE, *NOT_IN_PLACE])
def test_backward_is_the_gradient_of_forward(row: str) -> None:
    type_name, rest, x = {**IN_PLACE, **NOT_IN_PLACE}[row]
    check_gradient(layer(type_name, rest), {"x": x})


@pytest.mark.parametrize("row", IN_PLACE)
def test_backward_is_the_gradient_in_place_too(row: str) -> None:
    type_name, rest, x = IN_PLACE[row]
    check_gradient(layer(type_name, rest, tops="x"), {"x": x})


@pytest.mark.parametrize("row", IN_PLACE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place_gives_the_values_of_not_in_place(row: str, dtype: type) -> None:
    type_name, rest, x = IN_PLACE[row]
    found = []
    for top in ("y", "x"):
        net = build_net(layer(type_name, rest, tops=top), {"x": x.astype(dtype)}, dtype=dtype)
        net.forward()
        y = net.blob(top).data.plain().copy()
        net.blob(top).diff.plain_overwrite()[...] = normal(*x.shape, seed=8)
        net.clear_param_diffs()
        net.backward()
        diffs = [param.blob.diff.plain() for param in net.params.owned]
        found.append([y, net.blob("x").diff.plain(), *diffs])
    for apart, together in zip(*found, strict=True):
        assert apart.dtype == dtype
        np.testing.assert_array_equal(apart, together)


@pytest.mark.parametrize(
    "rest", ["", "operation: PROD", "operation: PROD stable_prod_grad: false", "coeff: [2, -1, 1]"]
)
def test_eltwise(rest: str) -> None:
    inputs = {name: normal(2, 3, seed=i) for i, name in enumerate("abc")}
    check_gradient(layer("Eltwise", f"eltwise_param {{ {rest} }}", "a b c"), inputs)


def test_eltwise_maximum() -> None:
    inputs = {name: distinct(3, 4, seed=i) for i, name in enumerate("abc", 1)}
    check_gradient(layer("Eltwise", "eltwise_param { operation: MAX }", "a b c"), inputs)


@pytest.mark.parametrize("rest", ["", "eltwise_param { coeff: [2, -1, 1] }"])
def test_eltwise_sum_in_place(rest: str) -> None:
    inputs = {name: normal(2, 3, seed=i) for i, name in enumerate("abc")}
    check_gradient(layer("Eltwise", rest, "a b c", "a"), inputs)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    shapes = {name: [2, 3, 4] for name in "abc"}
    shapes["b"][axis] = 1
    inputs = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    check_gradient(layer("Concat", f"concat_param {{ axis: {axis} }}", "a b c"), inputs)


@pytest.mark.parametrize("rest", ["slice_param { slice_point: [1, 4] }", "slice_param { slice_dim: 0 }", ""])
def test_slice(rest: str) -> None:
    check_gradient(layer("Slice", rest, tops="a b c"), {"x": normal(3, 6, 2)})


@pytest.mark.parametrize("tops", ["y", "x"])
@pytest.mark.parametrize("rest", ["", "scale_param { axis: 0 bias_term: true bias_filler { value: 2 } }"])
def test_scale_by_a_bottom(rest: str, tops: str) -> None:
    scale = normal(3) if not rest else normal(2, 3)
    check_gradient(layer("Scale", rest, "x s", tops), {"x": normal(2, 3, 4), "s": scale})


@pytest.mark.parametrize("tops", ["y", "x"])
@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 3, 4), ()])
def test_bias_by_a_bottom(shape: tuple[int, ...], tops: str) -> None:
    axis = 0 if len(shape) == 3 else 1
    net = layer("Bias", f"bias_param {{ axis: {axis} }}", "x b", tops)
    check_gradient(net, {"x": normal(2, 3, 4), "b": normal(*shape)})


def test_batch_reindex_of_rows_that_occur_several_times_or_never() -> None:
    inputs = {"x": normal(5, 3, 2), "i": np.array([3.0, 0, 3, 4, 3, 0])}
    check_gradient(layer("BatchReindex", bottoms="x i"), inputs)


def test_filter_of_two_blobs() -> None:
    inputs = {"a": normal(5, 3), "b": normal(5, 2, 2), "s": np.array([0.0, 1, 0, 2, -1])}
    check_gradient(layer("Filter", bottoms="a b s", tops="p q"), inputs)


def test_crop() -> None:
    net = layer("Crop", "crop_param { axis: 1 offset: [1, 0, 2] }", "x like")
    check_gradient(net, {"x": normal(2, 4, 5, 6), "like": normal(7, 3, 5, 2)})


def test_parameter_adds_its_gradient() -> None:
    check_gradient(layer("Parameter", "parameter_param { shape { dim: [2, 3] } }", ""), {})


def test_interp_to_the_size_of_a_bottom() -> None:
    check_gradient(layer("Interp", bottoms="x like"), {"x": normal(2, 2, 3, 4), "like": normal(1, 1, 5, 2)})


def test_upsample_by_the_mask_of_max_pooling() -> None:
    pool = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
    net = layer("Pooling", pool, "x", "p mask") + layer("Upsample", "", "p mask").replace(
        'layer" type', 'up" type'
    )
    check_gradient(net, {"x": distinct(2, 3, 4, 6)})


def test_silence_gives_zero() -> None:
    net = (
        'layer { name: "s" type: "Silence" bottom: "x" }'
        'layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { power: 2 } }'
    )
    check_gradient(net, {"x": normal(3, 4)})


SHARERS = {
    "Flatten": 'type: "Flatten"',
    "Reshape": 'type: "Reshape" reshape_param { shape { dim: 2 dim: -1 } }',
    "Concat": 'type: "Concat"',
    "Slice": 'type: "Slice"',
}


@pytest.mark.parametrize("row", SHARERS)
def test_a_top_that_is_its_bottom_has_several_consumers(row: str) -> None:
    net = (
        'layer { name: "before" type: "Power" bottom: "x" top: "a" power_param { power: 2 } }'
        f'layer {{ name: "layer" bottom: "a" top: "b" {SHARERS[row]} }}'
        'layer { name: "one" type: "TanH" bottom: "b" top: "c" }'
        'layer { name: "two" type: "Exp" bottom: "b" top: "d" }'
        'layer { name: "three" type: "Sigmoid" bottom: "a" top: "e" }'
    )
    check_gradient(net, {"x": normal(2, 3, 4)})
