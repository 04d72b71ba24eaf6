"""What is told when a loss, a score or a detection layer is used wrongly."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.errors import ConfigError, DataError, WeightsError
from tests.layers.gradient import Values, build_net


def blobs(*shapes: tuple[int, ...]) -> dict[str, Values]:
    """Zeros named a, b, c, ..."""
    return {chr(ord("a") + i): np.zeros(shape) for i, shape in enumerate(shapes)}


def one(type_name: str, inputs: dict[str, Values], rest: str = "") -> str:
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    return f'layer {{ name: "l" type: "{type_name}" {bottoms} top: "y" {rest} }}'


SCORES = ((4, 3), (4,))
PRIORS = ((2, 8), (2, 6), (1, 2, 8), (1, 1, 1, 8))
NMS = "detection_output_param { num_classes: 3 nms_param"

WRONG = [
    ("Softmax", ((2, 3),), "softmax_param { axis: 2 }", r"axis must be in \[-2, 2\), got 2"),
    (
        "Accuracy",
        ((4, 3), (3,)),
        "",
        r"bottom\[1\] \(labels\) must have one label per score vector .*\(4\), got 3",
    ),
    (
        "Accuracy",
        SCORES,
        "accuracy_param { top_k: 4 }",
        r"top_k must be at most the number of classes \(3\), got 4",
    ),
    ("Accuracy", SCORES, "accuracy_param { top_k: 0 }", "top_k must be at least 1, got 0"),
    ("Accuracy", SCORES, "accuracy_param { axis: 5 }", r"axis must be in \[-2, 2\), got 5"),
    (
        "EuclideanLoss",
        ((4, 3), (3, 4)),
        "",
        r"bottom\[1\] must have as many samples as bottom\[0\] \(4\), got 3",
    ),
    (
        "EuclideanLoss",
        ((4, 3), (4, 2)),
        "",
        r"bottom\[1\] must have as many values as bottom\[0\].*\(12\), got 8",
    ),
    ("EuclideanLoss", ((), ()), "", "bottoms must have a batch axis, got a scalar"),
    (
        "SigmoidCrossEntropyLoss",
        ((4, 3), (4,)),
        "",
        r"\(targets\) must have one target per score .*\(12\), got 4",
    ),
    ("SoftmaxWithLoss", ((4, 3), (2, 3)), "", r"must have one label per score vector .*\(4\), got 6"),
    (
        "SoftmaxWithLoss",
        SCORES,
        "loss_param { weight_by_label_freqs: true class_weighting: [1, 2] }",
        r"class_weighting must be given once per class \(3\), got 2 times",
    ),
    (
        "SoftmaxWithLoss",
        SCORES,
        "loss_param { label_smoothing: 1 }",
        r"label_smoothing must be in \[0, 1\), got 1",
    ),
    ("HingeLoss", ((4, 3), (4, 2)), "", r"must have one label per score vector .*\(4\), got 8"),
    ("MultinomialLogisticLoss", ((4, 3), (5,)), "", r"must have as many samples as bottom\[0\] \(4\), got 5"),
    (
        "InfogainLoss",
        SCORES,
        "",
        r"source must be a binaryproto file where there is no bottom\[2\], got none",
    ),
    ("InfogainLoss", (*SCORES, (3, 2)), "", r"infogain matrix must have 3 x 3 values, .* got \(3, 2\)"),
    ("ContrastiveLoss", ((4, 3), (4, 2), (4,)), "", r"bottom\[1\] must have the 12 values of bottom\[0\]"),
    (
        "ContrastiveLoss",
        ((4, 3), (4, 3), (3,)),
        "",
        r"bottom\[2\] must have one flag per pair \(4\), got \(3,\)",
    ),
    (
        "ContrastiveLoss",
        ((4, 3, 2), (4, 6), (4,)),
        "",
        r"bottom\[0\] must have a single value from axis 2 on",
    ),
    ("SmoothL1Loss", ((4, 3), (4, 3), (4, 1)), "", r"bottom\[2\] must have the 12 values of bottom\[0\]"),
    (
        "SmoothL1Loss",
        ((4, 3), (4, 3)),
        "smooth_l1_loss_param { sigma: 0 }",
        "sigma must be more than 0, got 0",
    ),
    ("FocalLoss", SCORES, "focal_loss_param { type: LINEAR }", "type must be ORIGIN, .* got LINEAR"),
    ("FocalLoss", SCORES, "focal_loss_param { gamma: -1 }", "gamma must be at least 0, got -1"),
    ("Embed", ((4,),), "embed_param { input_dim: 3 }", "num_output must be at least 1, got 0"),
    ("Embed", ((4,),), "embed_param { num_output: 3 }", "input_dim must be at least 1, got 0"),
    ("DummyData", (), "dummy_data_param { }", r"shape must be given once or once per top \(1\), got 0 times"),
    (
        "DummyData",
        (),
        "dummy_data_param { num: 1 channels: 1 height: 1 width: 1 shape { dim: 1 } }",
        "shape must be given without num, channels, height and width, got both",
    ),
    (
        "DummyData",
        (),
        "dummy_data_param { num: 1 }",
        "channels must be given once or once per top .* got 0 times",
    ),
    (
        "DummyData",
        (),
        'dummy_data_param { shape { dim: 1 } data_filler { type: "gausian" } }',
        'unknown filler type "gausian"; did you mean "gaussian"',
    ),
    ("Normalize", ((4,),), "", r"bottom\[0\] must have at least 2 axes \(N, C\), got \(4,\)"),
    ("PriorBox", ((1, 2, 3, 3), (1, 3, 9, 9)), "", "min_size must be given, above 0, got none"),
    (
        "PriorBox",
        ((1, 2, 3, 3), (1, 3, 9, 9)),
        "prior_box_param { min_size: 5 max_size: 4 }",
        r"max_size must be more than min_size \(5\), got 4",
    ),
    (
        "PriorBox",
        ((1, 2, 3, 3), (1, 3, 9, 9)),
        "prior_box_param { min_size: 5 variance: [0.1, 0.2] }",
        "variance must be one or four numbers above 0",
    ),
    (
        "PriorBox",
        ((1, 2, 3, 3), (1, 3, 9, 9)),
        "prior_box_param { min_size: 5 step: 4 step_h: 4 }",
        "step must be given without step_w and step_h, got both",
    ),
    ("PriorBox", ((1, 2), (1, 3, 9, 9)), "prior_box_param { min_size: 5 }", r"bottom\[0\] must have 4 axes"),
    ("ROIPooling", ((1, 2, 3, 3), (4, 5)), "", "pooled_h must be one or two numbers, at least 1"),
    (
        "ROIPooling",
        ((1, 2, 3, 3), (4, 4)),
        "roi_pooling_param { pooled_h: 2 pooled_w: 2 }",
        r"bottom\[1\] must have 5 values a region .* got \(4, 4\)",
    ),
    (
        "PSROIPooling",
        ((1, 7, 3, 3), (4, 5)),
        "psroi_pooling_param { spatial_scale: 1 output_dim: 2 group_size: 2 }",
        r"bottom\[0\] must have 8 channels \(output_dim x group_size\^2\)",
    ),
    ("MultiBoxLoss", PRIORS, "", "num_classes must be at least 1, got none"),
    (
        "MultiBoxLoss",
        PRIORS,
        "multibox_loss_param { num_classes: 4 }",
        r"bottom\[1\] must have 4 values for each of 2",
    ),
    (
        "MultiBoxLoss",
        PRIORS,
        "multibox_loss_param { num_classes: 3 share_location: false }",
        "share_location must be true where priors are mined, got false",
    ),
    (
        "MultiBoxLoss",
        PRIORS,
        "multibox_loss_param { num_classes: 3 background_label_id: 3 }",
        r"background_label_id must be below num_classes \(3\) for SOFTMAX, got 3",
    ),
    ("DetectionOutput", PRIORS[:3], "", "num_classes must be at least 1, got none"),
    ("DetectionOutput", PRIORS[:3], f"{NMS} {{ eta: 0 }} }}", r"eta must be in \(0, 1\], got 0"),
    (
        "DetectionOutput",
        PRIORS[:3],
        f'{NMS} {{ }} save_output_param {{ output_directory: "out" }} }}',
        "output_directory must be absent: write the detections from",
    ),
]


@pytest.mark.parametrize(("type_name", "shapes", "rest", "message"), WRONG)
def test_a_wrong_use_is_told(
    type_name: str, shapes: tuple[tuple[int, ...], ...], rest: str, message: str
) -> None:
    inputs = blobs(*shapes)
    with pytest.raises(ConfigError, match=rf'layer "l" \({type_name}\): .*{message}'):
        build_net(one(type_name, inputs, rest), inputs)


def test_normalize_refuses_to_run_in_place() -> None:
    inputs = blobs((2, 3))
    with pytest.raises(ConfigError, match=r"top\[0\] must be a blob of its own, got bottom\[0\]"):
        build_net('layer { name: "l" type: "Normalize" bottom: "a" top: "a" }', inputs)


def test_a_matrix_file_that_is_missing_is_named() -> None:
    inputs = blobs(*SCORES)
    with pytest.raises((DataError, WeightsError), match=r"no_such.binaryproto: must be a readable"):
        build_net(
            one("InfogainLoss", inputs, 'infogain_loss_param { source: "no_such.binaryproto" }'), inputs
        )


def test_labels_refuse_a_gradient() -> None:
    inputs = blobs(*SCORES)
    net = build_net(one("SoftmaxWithLoss", inputs, "propagate_down: [true, true]"), inputs)
    net.forward()
    with pytest.raises(
        ConfigError, match=r"bottom\[1\] must not need a gradient, .* got propagate_down: true for \"b\""
    ):
        net.backward()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([2, 1], r"image of object 1 must be in \[0, 2\) or -1, got 2"),
        ([1, 3], r"label of object 1, in sample 1 of the batch, must be in \[0, 3\) .* got 3"),
        ([1, 0], r"label of object 1, in sample 1 .* not the background \(0\), got 0"),
    ],
)
def test_an_object_that_is_none_is_named(row: list[float], message: str) -> None:
    inputs = blobs(*PRIORS[:3])
    inputs["d"] = np.array([[0, 1, 0, 0, 0, 1, 1, 0], [*row, 0, 0, 0, 1, 1, 0]], float).reshape(1, 1, 2, 8)
    net = build_net(one("MultiBoxLoss", inputs, "multibox_loss_param { num_classes: 3 }"), inputs)
    with pytest.raises(DataError, match=rf'layer "l" \(MultiBoxLoss\): {message}'):
        net.forward()


def test_a_region_of_no_image_is_named() -> None:
    inputs = blobs((2, 1, 3, 3), (2, 5))
    inputs["b"][1, 0] = 2
    net = build_net(one("ROIPooling", inputs, "roi_pooling_param { pooled_h: 1 pooled_w: 1 }"), inputs)
    with pytest.raises(DataError, match=r"image index of region 1 must be in \[0, 2\), got 2"):
        net.forward()
