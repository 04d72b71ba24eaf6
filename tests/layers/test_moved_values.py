"""Layers that share, choose, move or resize values: numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.proto import dtrain_pb2 as pb
from tests.layers.gradient import Values, build_net


def top_of(layer: str, *tops: str, phase: int = pb.TEST, **inputs: Values) -> list[Values]:
    names = " ".join(f'bottom: "{name}"' for name in inputs)
    names += " " + " ".join(f'top: "{name}"' for name in tops or ("y",))
    net = build_net(f'layer {{ name: "layer" {names} {layer} }}', inputs, phase=phase)
    for blob in net.blobs.values():
        blob.data.plain_overwrite().fill(np.nan)
    for name, values in inputs.items():
        net.blob(name).data.plain_overwrite()[...] = values
    net.forward()
    return [net.blob(name).data.plain() for name in tops or ("y",)]


def test_flatten_and_reshape_share_data_and_diff() -> None:
    for rest in ('type: "Flatten"', 'type: "Reshape" reshape_param { shape { dim: 2 dim: 6 } }'):
        net = build_net(f'layer {{ name: "l" bottom: "x" top: "y" {rest} }}', {"x": np.zeros((2, 2, 3))})
        x, y = net.blob("x"), net.blob("y")
        for one, other in ((x.data, y.data), (x.diff, y.diff)):
            assert np.shares_memory(one.plain(), other.plain())
            other.plain_mutable()[1, 5] = 7
            assert one.plain()[1, 1, 2] == 7


def test_a_shared_top_follows_a_bottom_that_gets_more_axes() -> None:
    net = build_net('layer { name: "l" type: "Flatten" bottom: "x" top: "y" }', {"x": np.zeros((2, 3))})
    x, y = net.blob("x"), net.blob("y")
    x.reshape((4, 2, 3))
    x.data.plain_overwrite()[...] = np.arange(24).reshape(4, 2, 3)
    net.forward()
    assert x.data.plain().shape == x.diff.plain().shape == (4, 2, 3)
    np.testing.assert_array_equal(y.data.plain(), np.arange(24).reshape(4, 6))


def test_filter_shapes_its_consumers_by_the_selector_of_each_pass() -> None:
    net = build_net(
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "a" }'
        'layer { name: "p" type: "Power" bottom: "a" top: "y" power_param { scale: 2 } }',
        {"x": np.arange(8.0).reshape(4, 2), "s": np.zeros(4)},
    )
    for selector, rows in (([0, 1, 1, 0], [1, 2]), ([5, -1, 1, 1], [0, 1, 2, 3]), ([0, 0, 0, 1], [3])):
        net.blob("s").data.plain_overwrite()[...] = selector
        net.forward()
        np.testing.assert_array_equal(net.blob("y").data.plain(), 2 * np.arange(8.0).reshape(4, 2)[rows])


def test_filter_that_chooses_nothing_gives_empty_tops() -> None:
    [y] = top_of('type: "Filter"', x=np.ones((3, 2)), s=np.zeros(3))
    assert y.shape == (0, 2)


def test_a_loss_behind_filter_counts_the_chosen_images() -> None:
    net = build_net(
        'layer { name: "f" type: "Filter" bottom: "x" bottom: "s" top: "y" loss_weight: 2 }',
        {"x": np.arange(8.0).reshape(4, 2), "s": np.array([0.0, 1, 0, 0])},
    )
    assert net.forward() == 2 * (2 + 3)


def test_permute_moves_channels_last() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    [y] = top_of('type: "Permute" permute_param { order: [0, 2, 3, 1] }', x=x)
    np.testing.assert_array_equal(y, x.transpose(0, 2, 3, 1))
    [y] = top_of('type: "Permute" permute_param { order: 2 }', x=x)
    np.testing.assert_array_equal(y, x.transpose(2, 0, 1, 3))


def test_shuffle_channel_deals_the_groups_in_turn() -> None:
    x = np.arange(6.0).reshape(1, 6, 1, 1)
    [y] = top_of('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', x=x)
    assert y.reshape(-1).tolist() == [0, 3, 1, 4, 2, 5]


def test_interp_keeps_the_corners() -> None:
    x = np.array([[0.0, 1], [2, 3]]).reshape(1, 1, 2, 2)
    [y] = top_of('type: "Interp" interp_param { height: 3 width: 4 }', x=x)
    third = 1 / 3
    np.testing.assert_allclose(
        y[0, 0],
        [[0, third, 2 * third, 1], [1, 1 + third, 1 + 2 * third, 2], [2, 2 + third, 2 + 2 * third, 3]],
    )
    [y] = top_of(
        'type: "Interp" interp_param { zoom_factor: 2 shrink_factor: 2 pad_end: -1 }', x=np.ones((1, 1, 6, 8))
    )
    assert y.shape == (1, 1, 5, 7)  # 5 x 7 -> 3 x 4 -> 5 x 7


def test_upsample_puts_values_where_the_mask_points() -> None:
    x = np.array([1.0, 2]).reshape(1, 1, 1, 2)
    [y] = top_of('type: "Upsample"', x=x, m=np.array([5.0, 2]).reshape(1, 1, 1, 2))
    np.testing.assert_array_equal(y[0, 0], [[0, 0, 2, 0], [0, 1, 0, 0]])
    rest = 'type: "Upsample" upsample_param { pad_out_w: true }'
    [y] = top_of(rest, x=x, m=np.array([5.0, 2]).reshape(1, 1, 1, 2))
    np.testing.assert_array_equal(y[0, 0], [[0, 0, 2], [0, 0, 1]])


def test_upsample_without_a_mask_repeats_pixels() -> None:
    [y] = top_of('type: "Upsample"', x=np.array([1.0, 2]).reshape(1, 1, 1, 2))
    np.testing.assert_array_equal(y[0, 0], [[1, 1, 2, 2], [1, 1, 2, 2]])


@pytest.mark.parametrize("top_k", [1, 2])
def test_argmax_takes_the_last_of_equal_values(top_k: int) -> None:
    [y] = top_of(f'type: "ArgMax" argmax_param {{ axis: 1 top_k: {top_k} }}', x=np.array([[3.0, 5, 5, 1]]))
    assert y.tolist() == [[2, 1][:top_k]]


def test_maximum_of_equal_values_is_the_second_and_then_the_first() -> None:
    inputs = {name: np.ones((1, 1)) for name in "abc"}
    net = build_net(
        'layer { name: "l" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" '
        "eltwise_param { operation: MAX } }",
        inputs,
    )
    net.forward()
    net.blob("y").diff.plain_overwrite().fill(1)
    net.backward()
    assert [net.blob(name).diff.plain().item() for name in "abc"] == [0, 1, 0]


def test_functions_stand_values_far_out() -> None:
    x = np.array([[-1e4, -800.0, 0, 800, 1e4]])
    for rest, expected in (
        ('type: "BNLL"', [0, 0, np.log(2), 800, 1e4]),
        ('type: "Sigmoid"', [0, 0, 0.5, 1, 1]),
        ('type: "Swish"', [0, 0, 0, 800, 1e4]),
        ('type: "ELU"', [-1, -1, 0, 800, 1e4]),
        ('type: "Exp"', [0, 0, 1, np.inf, np.inf]),
        ('type: "Log"', [np.nan, np.nan, -np.inf, np.log(800), np.log(1e4)]),
        ('type: "ReLU6"', [0, 0, 0, 6, 6]),
        ('type: "Power" power_param { power: 0.5 }', [np.nan, np.nan, 0, 800**0.5, 100]),
    ):
        [y] = top_of(rest, x=x)
        np.testing.assert_allclose(y[0], expected, rtol=1e-12, atol=1e-300, err_msg=rest)


def test_power_of_zero_has_a_gradient() -> None:
    net = build_net(
        'layer { name: "l" type: "Power" bottom: "x" top: "y" power_param { power: 3 } }',
        {"x": np.zeros((1, 2))},
    )
    net.forward()
    net.blob("y").diff.plain_overwrite().fill(1)
    net.backward()
    assert net.blob("x").diff.plain().tolist() == [[0, 0]]


def test_parameter_survives_a_layer_in_place_behind_it() -> None:
    net = build_net(
        'layer { name: "p" type: "Parameter" top: "y" parameter_param { shape { dim: 3 } } }'
        'layer { name: "e" type: "Exp" bottom: "y" top: "y" }',
        {},
    )
    for _ in range(2):
        net.forward()
        assert net.blob("y").data.plain().tolist() == [1, 1, 1]
    assert net.layer("p").blobs[0].data.plain().tolist() == [0, 0, 0]
