"""Layers of detectors against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.boxes import BoxCode, Coding, Suppression
from dtrain.kernels.cpu.boxes import decode, encode, overlaps, suppress
from tests.layers.gradient import Values, build_net, check_gradient

# Three priors on a unit image, and their variances:
#
#   a: left half    b: right half    c: the lower right quarter
PRIORS = np.array(
    [
        [[0, 0, 0.5, 1], [0.5, 0, 1, 1], [0.5, 0.5, 1, 1]],
        [[0.1, 0.1, 0.2, 0.2]] * 3,
    ]
).reshape(1, 2, 12)


def objects(*rows: tuple[float, ...]) -> Values:
    """Rows of image, class, xmin, ymin, xmax, ymax, difficult."""
    return np.array([[r[0], r[1], 0, *r[2:]] for r in rows], float).reshape(1, 1, -1, 8)


def multi_box(settings: str, rest: str = "") -> str:
    return f"""
        layer {{
          name: "l" type: "MultiBoxLoss" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "truth"
          top: "loss" propagate_down: [true, true, false, false] {rest}
          multibox_loss_param {{ num_classes: 3 {settings} }}
        }}
    """


def inputs(truth: Values, num: int = 1, seed: int = 5, classes: int = 1) -> dict[str, Values]:
    rng = np.random.default_rng(seed)
    return {
        "loc": rng.standard_normal((num, 12 * classes)) * 0.4,
        "conf": rng.standard_normal((num, 9)),
        "priors": PRIORS,
        "truth": truth,
    }


ONE = objects((0, 2, 0.55, 0.0, 1.0, 0.9, 0))
TWO = objects((0, 2, 0.55, 0.0, 1.0, 0.9, 0), (1, 1, 0.0, 0.1, 0.6, 0.9, 0), (1, 2, 0.5, 0.5, 0.9, 1.0, 0))


def log_softmax(x: Values) -> Values:
    return np.asarray(x - np.log(np.exp(x).sum(axis=-1, keepdims=True)))


def test_multi_box_loss_is_that_of_the_matched_prior_and_the_worst_negative() -> None:
    values = inputs(ONE)
    net = build_net(multi_box("code_type: CORNER neg_pos_ratio: 1 overlap_threshold: 0.6"), values)
    loss = net.forward()
    # object against a: nothing in common; b: 0.405 / 0.5 = 0.81, matched; c: 0.18 / 0.475 = 0.38, negative
    off = values["loc"].reshape(3, 4)[1] - np.array([0.05, 0, 0, -0.1]) / [0.1, 0.1, 0.2, 0.2]
    size = np.abs(off)
    box = np.where(size < 1, off**2 / 2, size - 0.5).sum()
    logs = log_softmax(values["conf"].reshape(3, 3))
    negative = -min(logs[0, 0], logs[2, 0])
    assert loss == pytest.approx(box - logs[1, 2] + negative, rel=1e-12)


def test_multi_box_loss_without_objects_is_zero() -> None:
    values = inputs(objects((-1, -1, -1, -1, -1, -1, -1)))
    net = build_net(multi_box(""), values)
    assert net.forward() == 0
    net.backward()
    assert not net.blob("loc").diff.plain().any()
    assert not net.blob("conf").diff.plain().any()


def test_an_object_takes_its_best_prior_even_below_the_threshold() -> None:
    values = inputs(objects((0, 1, 0.0, 0.0, 0.2, 0.2, 0)))
    net = build_net(
        multi_box("mining_type: NONE overlap_threshold: 0.9", "loss_param { normalization: NONE }"), values
    )
    loss = net.forward()
    target = encode(
        Coding(code=BoxCode.CORNER, variance_in_target=False),
        PRIORS[0, 0].reshape(3, 4)[0],
        PRIORS[0, 1].reshape(3, 4)[0],
        np.array([0.0, 0.0, 0.2, 0.2]),
    )
    off = values["loc"].reshape(3, 4)[0] - target
    size = np.abs(off)
    box = np.where(size < 1, off**2 / 2, size - 0.5).sum()
    logs = log_softmax(values["conf"].reshape(3, 3))
    assert loss == pytest.approx(box - logs[0, 1] - logs[1, 0] - logs[2, 0], rel=1e-12)


def test_difficult_objects_are_left_out_on_request() -> None:
    hard = objects((0, 2, 0.55, 0.0, 1.0, 0.9, 1))
    assert build_net(multi_box("use_difficult_gt: false"), inputs(hard)).forward() == 0
    assert build_net(multi_box(""), inputs(hard)).forward() > 0


@pytest.mark.parametrize(
    "settings",
    [
        "code_type: CENTER_SIZE",
        "code_type: CENTER_SIZE encode_variance_in_target: true loc_loss_type: L2",
        "code_type: CORNER_SIZE loc_weight: 0.5 mining_type: NONE",
        "code_type: CORNER conf_loss_type: LOGISTIC",
        "conf_loss_type: LOGISTIC mining_type: NONE match_type: BIPARTITE",
        "mining_type: HARD_EXAMPLE sample_size: 2",
        "mining_type: HARD_EXAMPLE nms_param { nms_threshold: 0.3 } use_prior_for_nms: true",
        "nms_param { nms_threshold: 0.9 top_k: 2 } bp_inside: true ignore_cross_boundary_bbox: true",
        "use_prior_for_matching: false bp_inside: true",
    ],
)
def test_multi_box_loss_passes_the_gradient_check(settings: str) -> None:
    values = inputs(TWO, num=3)
    check_gradient(multi_box(settings), values, wrt=["loc", "conf"], step=1e-5)


@pytest.mark.parametrize("settings", ["use_prior_for_matching: false", ""])
def test_multi_box_loss_of_boxes_for_every_class_passes_the_gradient_check(settings: str) -> None:
    values = inputs(TWO, num=2, classes=3)
    net = multi_box(f"share_location: false mining_type: NONE {settings}")
    check_gradient(net, values, wrt=["loc", "conf"], step=1e-5)


@pytest.mark.parametrize("code", list(BoxCode))
@pytest.mark.parametrize("variance_in_target", [True, False])
def test_decoding_undoes_encoding(code: BoxCode, variance_in_target: bool) -> None:
    coding = Coding(code=code, variance_in_target=variance_in_target)
    priors, variances = PRIORS[0].reshape(2, 3, 4)
    boxes = np.array([[0.1, 0.2, 0.7, 0.5], [0.5, 0, 0.6, 0.9], [0.3, 0.3, 0.4, 0.4]])
    again = decode(coding, priors, variances, encode(coding, priors, variances, boxes))
    np.testing.assert_allclose(again, boxes, rtol=1e-12)


def test_overlap_is_intersection_over_union() -> None:
    a = np.array([[0, 0, 2, 2], [0, 0, 1, 1], [3, 3, 2, 2]], float)
    b = np.array([1, 1, 3, 3], float)
    np.testing.assert_allclose(overlaps(a, b), [1 / 7, 0, 0])


def test_suppression_keeps_the_best_of_what_overlaps() -> None:
    # 0 and 1 overlap by 0.6, 1 and 2 by 0.6, 0 and 2 by 1 / 3
    boxes = np.array([[0, 0, 8, 1], [2, 0, 10, 1], [4, 0, 12, 1], [20, 0, 21, 1]], float)
    scores = np.array([0.9, 0.8, 0.7, 0.95])
    assert list(suppress(Suppression(threshold=0.5, top_k=None), boxes, scores)) == [3, 0, 2]
    assert list(suppress(Suppression(threshold=0.5, top_k=2), boxes, scores)) == [3, 0]
    assert list(suppress(Suppression(threshold=0.7, top_k=None), boxes, scores)) == [3, 0, 1, 2]
    # the threshold falls to 0.63, then 0.567, when the first two stay
    assert list(suppress(Suppression(threshold=0.7, top_k=None, eta=0.9), boxes, scores)) == [3, 0, 2]


def detections(settings: str, conf: Values) -> Values:
    net = """
        layer {
          name: "l" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" top: "out"
          detection_output_param { num_classes: 3 code_type: CORNER %s }
        }
    """
    values = {"loc": np.zeros((len(conf), 12)), "conf": conf, "priors": PRIORS}
    values["loc"][:, 0] = 1  # moves xmin of a by its variance
    built = build_net(net % settings, values, phase=1)
    built.forward()
    return built.blob("out").data.plain()


# scores of (background, class 1, class 2) for the priors a, b, c
CONF = np.array([[0.1, 0.8, 0.1, 0.1, 0.2, 0.7, 0.05, 0.35, 0.6]])


def test_detection_output_lists_image_class_score_and_box() -> None:
    out = detections("confidence_threshold: 0.3 nms_param { nms_threshold: 0.45 }", CONF)
    np.testing.assert_allclose(
        out[0, 0],
        [
            [0, 1, 0.8, 0.1, 0, 0.5, 1],
            [0, 1, 0.35, 0.5, 0.5, 1, 1],
            [0, 2, 0.7, 0.5, 0, 1, 1],  # c overlaps b by 0.5, so it is gone
        ],
    )


def test_detection_output_keeps_the_best_of_an_image() -> None:
    out = detections("confidence_threshold: 0.3 nms_param { nms_threshold: 0.9 } keep_top_k: 3", CONF)
    np.testing.assert_allclose(out[0, 0, :, :3], [[0, 1, 0.8], [0, 2, 0.7], [0, 2, 0.6]])


def test_detection_output_without_detections_has_a_row_for_every_image() -> None:
    out = detections("confidence_threshold: 0.99", np.repeat(CONF, 2, axis=0))
    np.testing.assert_array_equal(out[0, 0], [[0, -1, -1, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1, -1]])


def prior_boxes(settings: str, feature: tuple[int, int] = (1, 2)) -> Values:
    net = 'layer { name: "l" type: "PriorBox" bottom: "f" bottom: "i" top: "p" prior_box_param { %s } }'
    values = {"f": np.zeros((1, 4, *feature)), "i": np.zeros((1, 3, 10, 40))}
    built = build_net(net % settings, values)
    built.forward()
    return built.blob("p").data.plain()


def test_prior_boxes_lie_around_the_middle_of_every_position() -> None:
    boxes = prior_boxes("min_size: 4.9 max_size: 9 aspect_ratio: 4 variance: [0.1, 0.1, 0.2, 0.3]")
    assert boxes.shape == (1, 2, 2 * 4 * 4)
    # sizes: 4 (cut to whole pixels), sqrt(4 * 9) = 6, 4 * 2 by 4 / 2, and flipped; middles (10, 5), (30, 5)
    want = [
        [(x - w / 2) / 40, (5 - h / 2) / 10, (x + w / 2) / 40, (5 + h / 2) / 10]
        for x in (10, 30)
        for w, h in ((4, 4), (6, 6), (8, 2), (2, 8))
    ]
    np.testing.assert_allclose(boxes[0, 0].reshape(-1, 4), want)
    np.testing.assert_allclose(boxes[0, 1].reshape(-1, 4), [[0.1, 0.1, 0.2, 0.3]] * 8, rtol=1e-6)


def test_prior_boxes_take_steps_and_are_clipped() -> None:
    boxes = prior_boxes("min_size: 8 aspect_ratio: 1 step: 4 offset: 0.5 clip: true", (1, 1))
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 6 / 40, 6 / 10])
    np.testing.assert_allclose(boxes[0, 1], 0.1)


def pooled(kind: str, settings: str, maps: Values, regions: list[list[float]]) -> Values:
    net = f'layer {{ name: "l" type: "{kind}" bottom: "x" bottom: "r" top: "y" {settings} }}'
    built = build_net(net, {"x": maps, "r": np.array(regions, float)})
    built.forward()
    return built.blob("y").data.plain()


def test_roi_pooling_takes_the_maximum_of_overlapping_bins() -> None:
    #  0  1  2  3  4
    #  5  6  7  8  9
    # 10 11 12 13 14
    maps = np.arange(15.0).reshape(1, 1, 3, 5)
    param = "roi_pooling_param { pooled_h: 2 pooled_w: 2 spatial_scale: 0.5 }"
    out = pooled("ROIPooling", param, maps, [[0, 0, 0, 4, 4], [0, 7, 3, 9, 9], [0, 20, 0, 22, 2]])
    # rows and columns 0 to 2, in bins of 1.5: 0 to 1 and 1 to 2
    np.testing.assert_array_equal(out[0, 0], [[6, 7], [11, 12]])
    # from (4, 2), 3.5 and 1.5 rounded up, to beyond the map: one row is left, and one column of the first bin
    np.testing.assert_array_equal(out[1, 0], [[14, 0], [0, 0]])
    np.testing.assert_array_equal(out[2, 0], [[0, 0], [0, 0]])


def test_psroi_pooling_takes_the_mean_of_every_bin_from_its_own_channel() -> None:
    maps = np.arange(4.0).reshape(1, 4, 1, 1) * 100 + np.arange(16.0).reshape(1, 1, 4, 4)
    param = "psroi_pooling_param { output_dim: 1 group_size: 2 spatial_scale: 1 }"
    out = pooled("PSROIPooling", param, maps, [[0, 0, 0, 3, 3], [0, 1, 1, 1, 1], [0, 9, 9, 9, 9]])
    np.testing.assert_array_equal(out[0, 0], [[2.5, 104.5], [210.5, 312.5]])
    np.testing.assert_array_equal(out[1, 0], [[5, 105], [205, 305]])
    np.testing.assert_array_equal(out[2, 0], [[0, 0], [0, 0]])
