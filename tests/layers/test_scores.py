"""Accuracy's exact counts, DummyData's draws, and where losses get their labels and matrices from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.errors import DataError
from dtrain.net import Net
from dtrain.proto.blobproto import array_to_blobproto
from dtrain.proto.files import write_binary
from tests.layers.gradient import Values, build_net

SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.5], [0.2, 0.3, 0.5], [0.0, 0.9, 0.1]])


def accuracy(labels: list[float], settings: str = "", scores: Values = SCORES, tops: str = "a") -> Net:
    told = " ".join(f'top: "{name}"' for name in tops.split())
    net = build_net(
        f'layer {{ name: "l" type: "Accuracy" bottom: "x" bottom: "t" {told} '
        f"accuracy_param {{ {settings} }} }}",
        {"x": scores, "t": np.array(labels, float)},
    )
    net.forward()
    return net


def counts(net: Net) -> tuple[int, int]:
    layer = net.layer("l")
    return layer.correct, layer.counted  # type: ignore[attr-defined]


def test_accuracy_counts_labels_of_the_highest_score() -> None:
    net = accuracy([1, 1, 2, 2])
    assert counts(net) == (2, 4)
    assert net.blob("a").data.plain() == 0.5


def test_accuracy_counts_a_tie_as_wrong() -> None:
    assert counts(accuracy([1, 0, 0, 0])) == (1, 4)
    assert counts(accuracy([1, 0, 0, 0], "top_k: 2")) == (2, 4)


def test_accuracy_leaves_the_ignored_label_out() -> None:
    net = accuracy([255, 2, 2, 255], "ignore_label: 255")
    assert counts(net) == (1, 2)
    assert net.blob("a").data.plain() == 0.5


def test_accuracy_of_nothing_counted_is_zero() -> None:
    net = accuracy([7, 7, 7, 7], "ignore_label: 7")
    assert counts(net) == (0, 0)
    assert net.blob("a").data.plain() == 0


def test_accuracy_gives_the_share_of_every_class() -> None:
    net = accuracy([1, 1, 2, 2], tops="a each")
    np.testing.assert_array_equal(net.blob("each").data.plain(), [0, 0.5, 0.5])


def test_accuracy_counts_scores_that_are_no_numbers_as_wrong() -> None:
    assert counts(accuracy([1, 1, 2, 2], scores=np.full((4, 3), np.nan))) == (0, 4)


@pytest.mark.parametrize(
    "type_name", ["SoftmaxWithLoss", "HingeLoss", "MultinomialLogisticLoss", "FocalLoss", "Accuracy"]
)
@pytest.mark.parametrize("label", [3.0, -1.0, np.nan])
def test_a_label_that_is_no_class_names_layer_and_sample(type_name: str, label: float) -> None:
    net = build_net(
        f'layer {{ name: "l" type: "{type_name}" bottom: "x" bottom: "t" top: "y" }}',
        {"x": SCORES, "t": np.array([0, 1, label, 2])},
    )
    told = rf'layer "l" \({type_name}\): label of sample 2 of the batch must be in \[0, 3\), got {label:g}'
    with pytest.raises(DataError, match=told):
        net.forward()


def test_an_index_that_is_no_row_names_layer_and_sample() -> None:
    net = build_net(
        'layer { name: "l" type: "Embed" bottom: "i" top: "y" embed_param { num_output: 2 input_dim: 4 } }',
        {"i": np.array([[0.0, 1.0], [2.5, 4.0]])},
    )
    told = r'layer "l" \(Embed\): index of sample 1 of the batch must be a whole number in \[0, 4\), got 2.5'
    with pytest.raises(DataError, match=told):
        net.forward()


def test_infogain_loss_reads_its_matrix_from_a_file(tmp_path: Path) -> None:
    matrix = np.array([[1, 0.5, 0], [0, 2, 0], [0.25, 0, 1]], np.float32)
    write_binary(tmp_path / "h.binaryproto", array_to_blobproto(matrix))
    inputs = {"x": SCORES, "t": np.array([0, 1, 2, 2.0])}
    layer = 'layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "t" %s top: "y" %s }'
    source = f'infogain_loss_param {{ source: "{tmp_path / "h.binaryproto"}" }}'
    from_file = build_net(layer % ("", source), inputs).forward()
    from_bottom = build_net(layer % ('bottom: "h"', ""), {**inputs, "h": matrix}).forward()
    logs = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    assert from_file == from_bottom == pytest.approx(-(matrix[[0, 1, 2, 2]] * logs).sum() / 4)


def dummy(settings: str, rank: int = 0, size: int = 1, seed: int = 0) -> Net:
    text = f'layer {{ name: "d" type: "DummyData" top: "a" top: "b" dummy_data_param {{ {settings} }} }}'
    return build_net(text, {}, rank=rank, size=size, seed=seed)


RANDOM = 'shape { dim: 4 dim: 2 } data_filler { type: "uniform" } data_filler { type: "gaussian" }'


def drawn(net: Net, passes: int = 1) -> Values:
    for _ in range(passes):
        net.forward()
    return np.stack([net.blob("a").data.plain(), net.blob("b").data.plain()])


def test_dummy_data_of_one_constant_is_filled_once() -> None:
    net = dummy("num: 2 num: 1 channels: 3 height: 1 width: 2 data_filler { value: 7 }")
    assert net.blob("a").shape == (2, 3, 1, 2)
    assert net.blob("b").shape == (1, 3, 1, 2)
    net.forward()
    np.testing.assert_array_equal(net.blob("a").data.plain(), np.full((2, 3, 1, 2), 7))
    net.blob("a").data.plain_mutable()[...] = 1
    net.forward()
    assert net.blob("a").data.plain().max() == 1


def test_dummy_data_without_fillers_is_zero() -> None:
    assert not drawn(dummy("shape { dim: 4 }")).any()


def test_dummy_data_draws_anew_in_every_pass_and_for_every_top() -> None:
    net = dummy(RANDOM)
    first, second = drawn(net), drawn(net)
    assert (first != second).all()
    assert (first[0] != first[1]).all()
    np.testing.assert_array_equal(drawn(dummy(RANDOM), 2), second)
    assert (drawn(dummy(RANDOM, seed=1)) != first).all()


def test_dummy_data_of_ranks_together_is_that_of_one_rank() -> None:
    whole = drawn(dummy(RANDOM.replace("dim: 4", "dim: 8")))
    for rank in range(2):
        np.testing.assert_array_equal(drawn(dummy(RANDOM, rank, 2)), whole[:, rank::2])


def test_softmax_with_loss_weighs_classes_only_if_asked() -> None:
    inputs = {"x": SCORES, "t": np.array([0, 1, 2, 2.0])}
    layer = 'layer {{ name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" loss_param {{ {} }} }}'
    weights = "class_weighting: [1, 2, 4]"
    logs = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    each = -logs[np.arange(4), [0, 1, 2, 2]]
    assert build_net(layer.format(weights), inputs).forward() == pytest.approx(each.mean())
    asked = build_net(layer.format(f"weight_by_label_freqs: true {weights}"), inputs).forward()
    assert asked == pytest.approx((each * [1, 2, 4, 4]).mean())


def test_softmax_with_loss_spreads_smoothed_labels_over_all_classes() -> None:
    inputs = {"x": SCORES, "t": np.array([0, 1, 2, 2.0])}
    net = build_net(
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "t" top: "y" top: "p" '
        "loss_weight: [1, 0] loss_param { label_smoothing: 0.3 } }",
        inputs,
    )
    logs = SCORES - np.log(np.exp(SCORES).sum(axis=1, keepdims=True))
    targets = 0.7 * np.eye(3)[[0, 1, 2, 2]] + 0.1
    assert net.forward() == pytest.approx(-(targets * logs).sum() / 4)
    np.testing.assert_allclose(net.blob("p").data.plain(), np.exp(logs))
