"""Windows, normalisations and recurrences: backward against differences of forward."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.proto import dtrain_pb2 as pb
from tests.layers.gradient import Values, build_net, check_gradient


def normal(*shape: int, seed: int = 7) -> Values:
    return np.random.default_rng(seed).standard_normal(shape)


def distinct(*shape: int) -> Values:
    """Values far apart from each other, so that no maximum changes under a small step."""
    count = int(np.prod(shape))
    return np.random.default_rng(7).permutation(count).reshape(shape) * 0.1 - count * 0.05


def layer(type_name: str, rest: str, bottoms: str = "x", tops: str = "y") -> str:
    names = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    names += " " + " ".join(f'top: "{name}"' for name in tops.split())
    return f'layer {{ name: "layer" type: "{type_name}" {names} {rest} }}'


FILLERS = 'weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "gaussian" std: 0.5 }'

ROWS = {
    "LRN across": ("LRN", "lrn_param { local_size: 3 alpha: 0.7 beta: 0.6 k: 2 }", normal(2, 5, 3, 4)),
    "LRN across, more neighbours than channels": (
        "LRN",
        "lrn_param { local_size: 9 alpha: 0.7 }",
        normal(2, 3, 3, 2),
    ),
    "LRN within": (
        "LRN",
        "lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 alpha: 0.7 k: 5 }",
        normal(2, 2, 4, 5),
    ),
    "BatchNorm of images": ("BatchNorm", "", normal(3, 2, 3, 4)),
    "BatchNorm of vectors": ("BatchNorm", "", normal(5, 3)),
    "BatchNorm of single values": ("BatchNorm", "", normal(6)),
    "BatchNorm with scale and bias": (
        "BatchNorm",
        'batch_norm_param { scale_bias: true scale_filler { type: "gaussian" std: 1 } }',
        normal(3, 2, 3, 4),
    ),
    "MVN per channel": ("MVN", "", normal(2, 3, 3, 4)),
    "MVN per image": ("MVN", "mvn_param { across_channels: true }", normal(2, 3, 3, 4)),
    "MVN of the mean only": ("MVN", "mvn_param { normalize_variance: false }", normal(2, 3, 3, 4)),
    "MVN of few axes": ("MVN", "mvn_param { across_channels: true }", normal(2, 5)),
    "Convolution": (
        "Convolution",
        f"convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 {FILLERS} }}",
        normal(2, 4, 5, 6),
    ),
    "Convolution, dilated, rectangular": (
        "Convolution",
        f"convolution_param {{ num_output: 2 kernel_h: 2 kernel_w: 3 dilation: 2 {FILLERS} }}",
        normal(2, 2, 5, 6),
    ),
    "Convolution of lines": (
        "Convolution",
        f"convolution_param {{ num_output: 2 kernel_size: 3 pad: 1 {FILLERS} }}",
        normal(2, 3, 6),
    ),
    "Convolution of volumes, by the N-D path": (
        "Convolution",
        f"convolution_param {{ num_output: 2 kernel_size: 2 force_nd_im2col: true {FILLERS} }}",
        normal(2, 2, 3, 3, 3),
    ),
    "Convolution without spatial axes": (
        "Convolution",
        f"convolution_param {{ num_output: 2 {FILLERS} }}",
        normal(3, 4),
    ),
    "Convolution with two axes of images": (
        "Convolution",
        f"convolution_param {{ axis: 2 num_output: 2 kernel_size: 2 {FILLERS} }}",
        normal(2, 2, 3, 4, 4),
    ),
    "DepthwiseConvolution": (
        "DepthwiseConvolution",
        f"convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 {FILLERS} }}",
        normal(2, 3, 4, 4),
    ),
    "Deconvolution": (
        "Deconvolution",
        f"convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 stride: 2 group: 2 {FILLERS} }}",
        normal(2, 2, 3, 4),
    ),
    "Deconvolution, dilated": (
        "Deconvolution",
        f"convolution_param {{ num_output: 2 kernel_size: 2 dilation: 3 bias_term: false {FILLERS} }}",
        normal(2, 3, 3, 3),
    ),
    "Deconvolution of lines": (
        "Deconvolution",
        f"convolution_param {{ num_output: 2 kernel_size: 4 stride: 2 {FILLERS} }}",
        normal(2, 3, 5),
    ),
    "Im2col": ("Im2col", "convolution_param { kernel_size: 3 pad: 1 stride: 2 }", normal(2, 2, 5, 4)),
    "Im2col, dilated lines": (
        "Im2col",
        "convolution_param { kernel_size: 2 dilation: 2 }",
        normal(2, 2, 6),
    ),
    "Pooling MAX": ("Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }", distinct(2, 2, 5, 6)),
    "Pooling MAX, one winner of several windows": (
        "Pooling",
        "pooling_param { kernel_size: 3 }",
        distinct(2, 2, 5, 5),
    ),
    "Pooling AVE": (
        "Pooling",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
        normal(2, 2, 5, 6),
    ),
    "Pooling AVE, global": (
        "Pooling",
        "pooling_param { pool: AVE global_pooling: true }",
        normal(2, 2, 5, 6),
    ),
    "Pooling STOCHASTIC": (
        "Pooling",
        "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }",
        np.abs(normal(2, 2, 4, 4)) + 0.1,
    ),
    "SPP MAX": ("SPP", "spp_param { pyramid_height: 3 }", distinct(2, 2, 9, 8)),
    "SPP AVE": ("SPP", "spp_param { pyramid_height: 2 pool: AVE }", normal(2, 2, 5, 7)),
}


@pytest.mark.parametrize("row", ROWS)
def test_backward_is_the_gradient_of_forward(row: str) -> None:
    type_name, rest, x = ROWS[row]
    # A drawn element changes where a cumulative sum crosses the draw: the value there must stay put.
    step = 1e-7 if "STOCHASTIC" in row else 1e-4
    rtol = 1e-4 if "STOCHASTIC" in row else 1e-6
    check_gradient(layer(type_name, rest), {"x": x}, step=step, rtol=rtol)


def test_batch_norm_by_global_statistics_is_linear_in_the_bottom() -> None:
    text = layer("BatchNorm", "batch_norm_param { use_global_stats: true scale_bias: true }")
    net = check_gradient(text, {"x": normal(3, 2, 3, 4)}, wrt=["x"], params=False)
    # Nothing gathered yet: mean and variance count as 0, so the gain is 1 / sqrt(eps).
    np.testing.assert_allclose(net.blob("y").data.plain(), net.blob("x").data.plain() / np.sqrt(1e-5))


def test_two_bottoms_share_the_weights_of_a_convolution() -> None:
    rest = f"convolution_param {{ num_output: 2 kernel_size: 2 {FILLERS} }}"
    x, z = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=8)
    check_gradient(layer("Convolution", rest, "x z", "y w"), {"x": x, "z": z})
    check_gradient(layer("Deconvolution", rest, "x z", "y w"), {"x": x, "z": z})


CONT = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]], np.float64)


@pytest.mark.parametrize("type_name", ["LSTM", "RNN"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("exposed", [False, True])
def test_recurrent_layers_propagate_through_time(type_name: str, static: bool, exposed: bool) -> None:
    inputs = {"x": normal(4, 3, 2, 2), "cont": CONT.copy()}
    tops = "y"
    if static:
        inputs["static"] = normal(3, 2, seed=8)
    if exposed:
        inputs["cont"][0] = 1
        for name in ("h", "c") if type_name == "LSTM" else ("h",):
            inputs[name] = normal(1, 3, 5, seed=9)
    rest = f"recurrent_param {{ num_output: 5 expose_hidden: {str(exposed).lower()} {FILLERS} }}"
    wrt = ["x", "static"] if static else ["x"]
    if exposed:
        tops = "y h_T c_T" if type_name == "LSTM" else "y h_T"
        # No gradient comes from the states at the end, so the objective must not see them.
        text = layer(type_name, rest, " ".join(inputs), tops)
        for name in tops.split()[1:]:
            text += f' layer {{ name: "hide_{name}" type: "Silence" bottom: "{name}" }}'
    else:
        text = layer(type_name, rest, " ".join(inputs), tops)
    check_gradient(text, inputs, wrt=wrt)


def test_lstm_unit_propagates_to_the_cell_and_the_gates() -> None:
    inputs = {
        "c": normal(1, 4, 3),
        "gates": normal(1, 4, 12, seed=8),
        "cont": np.array([[1, 0, 1, 0.5]]),
    }
    check_gradient(layer("LSTMUnit", "", "c gates cont", "c_next h"), inputs)


def test_hidden_state_goes_on_to_the_next_batch_and_is_forgotten_on_request() -> None:
    rest = f"recurrent_param {{ num_output: 5 {FILLERS} }}"
    x, ones = normal(4, 3, 2), np.ones((4, 3))
    net = build_net(layer("LSTM", rest, "x cont"), {"x": x, "cont": ones})
    net.forward()
    first = net.blob("y").data.plain().copy()
    net.forward()
    second = net.blob("y").data.plain().copy()
    long = build_net(layer("LSTM", rest, "x cont"), {"x": np.tile(x, (2, 1, 1)), "cont": np.ones((8, 3))})
    long.forward()
    np.testing.assert_allclose(np.concatenate([first, second]), long.blob("y").data.plain(), rtol=1e-12)
    lstm = net.layer("layer")
    lstm.forget()  # type: ignore[attr-defined]
    net.forward()
    np.testing.assert_array_equal(net.blob("y").data.plain(), first)


def test_exposed_states_carry_a_sequence_across_two_nets() -> None:
    rest = f"recurrent_param {{ num_output: 5 expose_hidden: true {FILLERS} }}"
    x, zeros = normal(4, 3, 2), np.zeros((1, 3, 5))
    text = layer("LSTM", rest, "x cont h c", "y h_T c_T")
    whole = build_net(text, {"x": x, "cont": np.ones((4, 3)), "h": zeros, "c": zeros})
    whole.forward()
    half = build_net(text, {"x": x[:2], "cont": np.ones((2, 3)), "h": zeros, "c": zeros})
    half.forward()
    rest_of_it = {
        "x": x[2:],
        "cont": np.ones((2, 3)),
        "h": half.blob("h_T").data.plain(),
        "c": half.blob("c_T").data.plain(),
    }
    other = build_net(text, rest_of_it)
    other.forward()
    for name in ("h_T", "c_T"):
        np.testing.assert_allclose(other.blob(name).data.plain(), whole.blob(name).data.plain(), rtol=1e-12)


@pytest.mark.parametrize("type_name", ["BatchNorm", "MVN"])
@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_in_place_gives_the_values_of_two_blobs(type_name: str, phase: int) -> None:
    x = normal(3, 2, 4, 5)
    found = []
    for top in ("x", "y"):
        net = build_net(layer(type_name, "", tops=top), {"x": x}, phase=phase)
        for blob in net.layer("layer").blobs:
            blob.data.plain_mutable()[...] += 0.5
        net.forward()
        net.blob(top).diff.plain_overwrite()[...] = np.sin(x)
        values = net.blob(top).data.plain().copy()
        net.backward()
        found.append((values, net.blob("x").diff.plain().copy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)


def test_depthwise_convolution_is_convolution_with_a_group_for_each_channel() -> None:
    rest = f"num_output: 6 kernel_size: 3 pad: 1 {FILLERS}"
    x = normal(2, 3, 5, 5)
    depthwise = build_net(layer("DepthwiseConvolution", f"convolution_param {{ {rest} }}"), {"x": x})
    grouped = build_net(layer("Convolution", f"convolution_param {{ {rest} group: 3 }}"), {"x": x})
    depthwise.forward()
    grouped.forward()
    np.testing.assert_array_equal(depthwise.blob("y").data.plain(), grouped.blob("y").data.plain())


def test_deconvolution_is_the_transpose_of_convolution() -> None:
    """<conv(x), y> = <x, deconv(y)> for the same weights."""
    rest = f"kernel_size: 3 stride: 2 pad: 1 group: 2 bias_term: false {FILLERS}"
    x, y = normal(2, 4, 7, 5), normal(2, 6, 4, 3, seed=8)
    convolution = build_net(layer("Convolution", f"convolution_param {{ num_output: 6 {rest} }}"), {"x": x})
    transposed = build_net(layer("Deconvolution", f"convolution_param {{ num_output: 4 {rest} }}"), {"x": y})
    transposed.layer("layer").blobs[0].data.plain_overwrite()[...] = (
        convolution.layer("layer").blobs[0].data.plain()
    )
    convolution.forward()
    transposed.forward()
    np.testing.assert_allclose(
        (convolution.blob("y").data.plain() * y).sum(), (x * transposed.blob("y").data.plain()).sum()
    )


def test_stochastic_pooling_draws_the_same_for_an_image_on_any_number_of_ranks() -> None:
    x = np.abs(normal(4, 3, 6, 6))
    text = layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 3 }")
    one = build_net(text, {"x": x})
    one.forward()
    expected = one.blob("y").data.plain().copy()
    for rank in range(2):
        net = build_net(text, {"x": x[rank::2]}, rank=rank, size=2)
        net.forward()
        np.testing.assert_array_equal(net.blob("y").data.plain(), expected[rank::2])
    one.forward()
    assert (one.blob("y").data.plain() != expected).any(), "the next pass draws anew"


def test_stochastic_pooling_draws_in_proportion_to_the_values_and_tests_by_their_mean() -> None:
    window = np.array([1.0, 2.0, 3.0, 4.0])
    x = np.broadcast_to(window.reshape(2, 2), (1, 4000, 2, 2)).copy()
    text = layer("Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 2 }")
    net = build_net(text, {"x": x})
    net.forward()
    drawn = net.blob("y").data.plain().ravel()
    shares = [(drawn == value).mean() for value in window]
    np.testing.assert_allclose(shares, window / 10, atol=0.03)
    test = build_net(text, {"x": x}, phase=pb.TEST)
    test.forward()
    np.testing.assert_allclose(test.blob("y").data.plain(), 3.0)


def test_maximum_of_a_window_of_minus_infinities_stays_inside_the_image() -> None:
    x = np.full((1, 2, 3, 3), -np.inf)
    net = build_net(layer("Pooling", "pooling_param { kernel_size: 2 pad: 1 }", tops="y argmax"), {"x": x})
    net.forward()
    assert (net.blob("y").data.plain() == -np.inf).all()
    net.blob("y").diff.plain_overwrite().fill(1)
    net.blob("argmax").diff.clear()
    net.backward()
    assert net.blob("x").diff.plain().sum() == net.blob("y").count
    assert net.blob("argmax").data.plain().min() == 0


def test_argmax_of_equal_values_is_the_first_of_them() -> None:
    """
    1 2 2
    3 3 0   windows of 2 x 2: the larger value, and of equal ones that which comes first in the image
    """
    x = np.array([[[[1.0, 2, 2], [3, 3, 0]]]])
    net = build_net(layer("Pooling", "pooling_param { kernel_size: 2 }", tops="y argmax"), {"x": x})
    net.forward()
    np.testing.assert_array_equal(net.blob("y").data.plain(), [[[[3, 3]]]])
    np.testing.assert_array_equal(net.blob("argmax").data.plain(), [[[[3, 4]]]])
