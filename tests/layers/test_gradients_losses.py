"""Losses, scores and detection layers: backward against differences of forward."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cpu.inner_product import InnerProduct
from dtrain.kernels.cpu.relu import ReLU
from tests.layers.gradient import Values, check_gradient


def scores(*shape: int, seed: int = 7) -> Values:
    return np.random.default_rng(seed).standard_normal(shape)


RELU = 'layer { name: "l" type: "ReLU" bottom: "x" top: "y" }'
INNER_PRODUCT = """
    layer { name: "l" type: "InnerProduct" bottom: "x" top: "y"
            inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""


def test_a_wrong_gradient_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ReLU.backward

    def wrong(self: ReLU, dy: SyncedArray, x: SyncedArray, dx: SyncedArray) -> None:
        right(self, dy, x, dx)
        dx.plain_mutable()[0, 0] += 1e-4

    check_gradient(RELU, {"x": scores(3, 4)})
    monkeypatch.setattr(ReLU, "backward", wrong)
    with pytest.raises(AssertionError, match="bottom x: backward gives"):
        check_gradient(RELU, {"x": scores(3, 4)})


def test_a_bottom_diff_left_unwritten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ReLU.backward

    def wrong(self: ReLU, dy: SyncedArray, x: SyncedArray, dx: SyncedArray) -> None:
        before = dx.plain()[0, 0]
        right(self, dy, x, dx)
        dx.plain_mutable()[0, 0] = before

    monkeypatch.setattr(ReLU, "backward", wrong)
    with pytest.raises(AssertionError, match="bottom x: backward left some of the diff unwritten"):
        check_gradient(RELU, {"x": scores(3, 4)})


def test_a_param_diff_that_is_overwritten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = InnerProduct.backward

    def wrong(
        self: InnerProduct,
        dy: SyncedArray,
        x: SyncedArray,
        w: SyncedArray,
        dx: SyncedArray | None,
        dw: SyncedArray | None,
        db: SyncedArray | None,
    ) -> None:
        if dw is not None:
            dw.clear()
        right(self, dy, x, w, dx, dw, db)

    check_gradient(INNER_PRODUCT, {"x": scores(3, 4)})
    monkeypatch.setattr(InnerProduct, "backward", wrong)
    with pytest.raises(AssertionError, match=r"param l\[0\]: a second backward must add to the diff"):
        check_gradient(INNER_PRODUCT, {"x": scores(3, 4)})


def labels(count: int, classes: int, seed: int = 3) -> Values:
    return np.random.default_rng(seed).integers(0, classes, count).astype(float)


def layer(type_name: str, bottoms: str, rest: str = "", top: str = "y") -> str:
    told = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return f'layer {{ name: "l" type: "{type_name}" {told} top: "{top}" {rest} }}'


SOFTMAX_LOSSES = [
    "",
    "loss_weight: 0.3 loss_param { normalization: FULL }",
    "loss_param { ignore_label: 2 }",
    "loss_param { ignore_label: 2 normalization: BATCH_SIZE }",
    "loss_param { normalize: false }",
    "loss_param { normalization: NONE label_smoothing: 0.1 }",
    "loss_param { normalization: PRE_FIXED pre_fixed_normalizer: 5 }",
    "loss_param { weight_by_label_freqs: true class_weighting: [0.5, 2, 1, 4] ignore_label: 0 }",
]


@pytest.mark.parametrize("rest", SOFTMAX_LOSSES)
def test_softmax_with_loss_of_vectors(rest: str) -> None:
    check_gradient(layer("SoftmaxWithLoss", "x t", rest), {"x": scores(6, 4), "t": labels(6, 4)})


@pytest.mark.parametrize("rest", SOFTMAX_LOSSES)
def test_softmax_with_loss_of_maps(rest: str) -> None:
    inputs = {"x": scores(2, 4, 3, 2), "t": labels(12, 4).reshape(2, 1, 3, 2)}
    check_gradient(layer("SoftmaxWithLoss", "x t", rest), inputs)


def test_softmax_with_loss_along_the_last_axis() -> None:
    net = layer("SoftmaxWithLoss", "x t", "softmax_param { axis: -1 }")
    check_gradient(net, {"x": scores(2, 3, 4), "t": labels(6, 4).reshape(2, 3)})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis: int) -> None:
    check_gradient(layer("Softmax", "x", f"softmax_param {{ axis: {axis} }}"), {"x": scores(2, 3, 4)})


def test_softmax_in_place() -> None:
    check_gradient(layer("Softmax", "x", top="x"), {"x": scores(2, 5)})


@pytest.mark.parametrize(
    "rest", ["", "loss_param { ignore_label: 1 normalization: VALID }", "loss_param { normalization: FULL }"]
)
def test_sigmoid_cross_entropy_loss(rest: str) -> None:
    targets = np.random.default_rng(1).choice([0.0, 0.25, 1.0], (3, 2, 4))
    net = layer("SigmoidCrossEntropyLoss", "x t", rest)
    check_gradient(net, {"x": 3 * scores(3, 2, 4), "t": targets})


def test_euclidean_loss_of_both_bottoms() -> None:
    inputs = {"a": scores(3, 2, 2), "b": scores(3, 4, seed=8)}
    check_gradient(layer("EuclideanLoss", "a b", "loss_weight: 2.5"), inputs)


@pytest.mark.parametrize("norm", ["L1", "L2"])
def test_hinge_loss(norm: str) -> None:
    net = layer("HingeLoss", "x t", f"hinge_loss_param {{ norm: {norm} }}")
    check_gradient(net, {"x": 2 * scores(6, 4), "t": labels(6, 4)})


def test_multinomial_logistic_loss() -> None:
    prob = np.random.default_rng(2).uniform(0.1, 0.9, (6, 4))
    check_gradient(layer("MultinomialLogisticLoss", "p t"), {"p": prob, "t": labels(6, 4)})


@pytest.mark.parametrize("rest", ["", "loss_param { ignore_label: 1 }", "loss_param { normalization: NONE }"])
def test_infogain_loss_with_its_matrix_as_a_bottom(rest: str) -> None:
    inputs = {"x": scores(2, 4, 3), "t": labels(6, 4).reshape(2, 3), "h": scores(4, 4, seed=9)}
    check_gradient(layer("InfogainLoss", "x t h", rest), inputs)


@pytest.mark.parametrize("margin", [0.5, 4.0, 60.0])
def test_legacy_contrastive_loss(margin: float) -> None:
    net = layer(
        "ContrastiveLoss", "a b s", f"contrastive_loss_param {{ margin: {margin} legacy_version: true }}"
    )
    check_gradient(net, {"a": scores(6, 4), "b": scores(6, 4, seed=8), "s": labels(6, 2)})


def test_contrastive_loss() -> None:
    # Caffe adds 1e-4 to the distance that backward divides by: distances are large for that to vanish
    inputs = {"a": 1e4 * scores(6, 4), "b": 1e4 * scores(6, 4, seed=8), "s": labels(6, 2)}
    check_gradient(layer("ContrastiveLoss", "a b s", "contrastive_loss_param { margin: 25000 }"), inputs)


@pytest.mark.parametrize("bottoms", ["a b", "a b inside", "a b inside outside"])
@pytest.mark.parametrize("rest", ["", "smooth_l1_loss_param { sigma: 3 } loss_param { normalization: FULL }"])
def test_smooth_l1_loss(bottoms: str, rest: str) -> None:
    shapes = {name: scores(3, 4, 2, 2, seed=i) for i, name in enumerate(bottoms.split())}
    check_gradient(layer("SmoothL1Loss", bottoms, rest), shapes)


@pytest.mark.parametrize(
    "rest", ["", "focal_loss_param { gamma: 0.5 alpha: 0.75 } loss_param { ignore_label: 2 }"]
)
def test_focal_loss(rest: str) -> None:
    inputs = {"x": scores(2, 4, 3), "t": labels(6, 4).reshape(2, 3)}
    check_gradient(layer("FocalLoss", "x t", rest), inputs)


@pytest.mark.parametrize("bias", ["true", "false"])
def test_embed_of_rows_that_occur_several_times(bias: str) -> None:
    fillers = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    net = layer("Embed", "i", f"embed_param {{ num_output: 3 input_dim: 5 bias_term: {bias} {fillers} }}")
    check_gradient(net, {"i": labels(8, 4).reshape(2, 4)})


@pytest.mark.parametrize("across", ["true", "false"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_normalize(across: str, shared: str) -> None:
    filler = 'scale_filler { type: "uniform" min: 0.5 max: 2 }'
    net = layer(
        "Normalize", "x", f"norm_param {{ across_spatial: {across} channel_shared: {shared} {filler} }}"
    )
    check_gradient(net, {"x": scores(2, 3, 4, 2)})


REGIONS = np.array(
    [
        [0, 0, 0, 7, 5],
        [1, 2, 1, 11, 9],  # beyond the map
        [1, 3, 3, 2, 2],  # malformed: at least one position
        [0, 2.5, -1.5, 5.5, 4],
        [0, 40, 40, 50, 50],  # outside: empty bins
    ]
)


def spread(*shape: int) -> Values:
    """Values without ties, 0.01 apart."""
    count = int(np.prod(shape))
    return np.random.default_rng(4).permutation(count).reshape(shape) * 0.01


def test_roi_pooling() -> None:
    net = layer("ROIPooling", "x r", "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.5 }")
    check_gradient(net, {"x": spread(2, 3, 5, 6), "r": REGIONS}, step=1e-5)


def test_psroi_pooling() -> None:
    net = layer(
        "PSROIPooling", "x r", "psroi_pooling_param { output_dim: 2 group_size: 3 spatial_scale: 0.5 }"
    )
    check_gradient(net, {"x": scores(2, 18, 5, 6), "r": REGIONS})
