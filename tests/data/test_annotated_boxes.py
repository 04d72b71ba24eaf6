"""Boxes of images that are cut, resized and mirrored, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dtrain.data.annotated_boxes import Emit, Objects, Window, areas, coverage, jaccard, mirrored
from dtrain.data.annotated_resize import Fit, Resize
from dtrain.data.annotated_sampling import Bounds, BoxSampler
from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

share = st.floats(0, 1, width=32)
wide = st.floats(-1, 2, width=32)


def objects(*boxes: Window) -> Objects:
    return Objects(np.arange(3 * len(boxes), dtype=float).reshape(-1, 3), np.array(boxes, float))


def boxes_of(*boxes: Window) -> np.ndarray:
    return np.array(boxes, float).reshape(-1, 4)


# a: left half    b: lower right quarter    c: the whole
A, B, C = (0, 0, 0.5, 1), (0.5, 0.5, 1, 1), (0, 0, 1, 1)
D = (0.25, 0.5, 0.75, 1)  # half of it in a, half in b


def test_overlaps_are_those_of_the_areas() -> None:
    np.testing.assert_allclose(areas(boxes_of(A, B, C, D, (1, 0, 0, 1))), [0.5, 0.25, 1, 0.25, 0])
    np.testing.assert_allclose(jaccard(boxes_of(D), boxes_of(A, B, C)), [[0.125 / 0.625, 1 / 3, 0.25]])
    np.testing.assert_allclose(jaccard(boxes_of(A), boxes_of(B)), [[0]])
    np.testing.assert_allclose(coverage(boxes_of(D), boxes_of(A, B, C)), [[0.5, 0.5, 1]])
    np.testing.assert_allclose(coverage(boxes_of(C), boxes_of(A, B)), [[0.5, 0.25]])


def test_objects_are_told_as_shares_of_the_window_that_they_are_seen_in() -> None:
    seen = objects((0.1, 0.2, 0.4, 0.9), (0.0, 0.0, 0.2, 0.5), (0.6, 0.6, 0.9, 0.9)).inside(
        (0.2, 0.4, 0.6, 0.8), Emit()
    )
    # the first covers half of the width and all of the height; the others only touch the window's border
    np.testing.assert_allclose(seen.boxes, [[0, 0, 0.5, 1]])
    np.testing.assert_array_equal(seen.tags, [[0, 1, 2]])


def test_a_window_beyond_the_image_makes_objects_smaller() -> None:
    seen = objects((0, 0, 1, 1), (0.5, 0.5, 1, 1)).inside((-1, -0.5, 3, 1.5), Emit())
    np.testing.assert_allclose(seen.boxes, [[0.25, 0.25, 0.5, 0.75], [0.375, 0.5, 0.5, 0.75]])


def test_a_centre_on_the_border_of_the_window_counts() -> None:
    whole = objects((0.0, 0.0, 0.5, 0.5), (0.0, 0.0, 0.49, 0.5))
    assert len(whole.inside((0.25, 0.25, 1, 1), Emit()).boxes) == 2
    seen = whole.inside((0.25, 0.25, 1, 1), Emit(by_centre=True))
    np.testing.assert_allclose(seen.boxes, [[0, 0, 1 / 3, 1 / 3]])


def test_more_than_emit_overlap_of_an_object_must_be_seen() -> None:
    whole = objects((0.25, 0, 0.75, 1))  # half of it lies in the window
    assert len(whole.inside((0.5, 0, 1, 1), Emit(overlap=0.5)).boxes) == 0
    assert len(whole.inside((0.5, 0, 1, 1), Emit(overlap=0.4)).boxes) == 1


def test_boxes_without_area_are_dropped() -> None:
    whole = objects((0.5, 0.1, 0.5, 0.9), (0.9, 0.1, 0.2, 0.9), (0.1, 0.1, 0.2, 0.2))
    np.testing.assert_allclose(whole.inside((0, 0, 1, 1), Emit()).boxes, [[0.1, 0.1, 0.2, 0.2]])


def test_rows_are_image_label_instance_box_difficult() -> None:
    rows = Objects(np.array([[7.0, 2, 1]]), boxes_of((0.1, 0.2, 0.3, 0.4))).rows(5)
    np.testing.assert_allclose(rows, [[5, 7, 2, 0.1, 0.2, 0.3, 0.4, 1]], rtol=1e-6)
    assert rows.dtype == np.float32


@given(st.lists(st.tuples(share, share, share, share), max_size=5))
def test_mirroring_twice_changes_nothing(rows: list[Window]) -> None:
    given_boxes = boxes_of(*rows)
    np.testing.assert_allclose(mirrored(mirrored(given_boxes)), given_boxes, atol=1e-15)
    np.testing.assert_allclose(areas(mirrored(given_boxes)), areas(given_boxes), atol=1e-15)


@given(
    st.lists(st.tuples(wide, wide, wide, wide), max_size=5),
    st.tuples(wide, wide, st.floats(0.01, 2), st.floats(0.01, 2)),
    st.sampled_from((Emit(), Emit(by_centre=True), Emit(overlap=0.3))),
)
def test_what_is_seen_in_a_window_lies_inside_it(rows: list[Window], place: Window, emit: Emit) -> None:
    left, top, width, height = place
    seen = objects(*rows) if rows else Objects(np.empty((0, 3)), np.empty((0, 4)))
    found = seen.inside((left, top, left + width, top + height), emit).rows(0)
    assert (found[:, 3:7] >= 0).all()
    assert (found[:, 3:7] <= 1).all()
    assert (found[:, 3] <= found[:, 5]).all()
    assert (found[:, 4] <= found[:, 6]).all()


# --- samplers


def sampler(spec: str) -> BoxSampler:
    param = pb.BatchSampler()
    text.parse(spec, param)
    return BoxSampler.from_param(param, "net.prototxt:7")


def test_a_box_is_drawn_from_scale_form_and_place() -> None:
    boxes = sampler(
        "sampler { min_scale: 0.3 max_scale: 0.7 min_aspect_ratio: 1 max_aspect_ratio: 4 }"
    ).boxes(np.array([[0.5, 0, 0, 1], [0.5, 1, 1, 0.5]]))
    # scale 0.5: a square at the lower left; then 4:1, which is as wide as the image
    np.testing.assert_allclose(boxes, [[0, 0.5, 0.5, 1], [0, 0.375, 1, 0.625]], rtol=1e-6)


def test_a_form_that_does_not_fit_the_image_is_made_to() -> None:
    boxes = sampler("sampler { min_scale: 0.8 max_scale: 0.8 max_aspect_ratio: 9 }").boxes(
        np.array([[0, 1, 0.3, 0]])
    )
    np.testing.assert_allclose(boxes, [[0, 0, 1, 0.64]], rtol=1e-6)


unit_draws = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((50, 4)))


@given(
    unit_draws,
    st.floats(0.05, 1),
    st.floats(0, 1),
    st.floats(0.1, 1),
    st.floats(1, 10),
)
def test_boxes_lie_in_the_image_and_keep_their_scale(
    draws: np.ndarray, low: float, more: float, flat: float, tall: float
) -> None:
    one = BoxSampler(scale=(low, low + more * (1 - low)), aspect_ratio=(flat, tall))
    boxes = one.boxes(draws)
    assert (boxes >= 0).all()
    assert (boxes <= 1 + 1e-12).all()
    scales = np.sqrt(areas(boxes))
    assert (scales >= one.scale[0] - 1e-9).all()
    assert (scales <= one.scale[1] + 1e-9).all()


@given(unit_draws, st.floats(0, 1), st.lists(st.tuples(share, share, share, share), min_size=1, max_size=4))
def test_sampled_boxes_meet_the_constraint(draws: np.ndarray, least: float, rows: list[Window]) -> None:
    rows_sorted = boxes_of(*rows)
    targets = np.concatenate(
        [
            np.minimum(rows_sorted[:, :2], rows_sorted[:, 2:]),
            np.maximum(rows_sorted[:, :2], rows_sorted[:, 2:]),
        ],
        1,
    )
    plain = BoxSampler(scale=(0.1, 1), aspect_ratio=(0.5, 2))
    for name in ("jaccard_overlap", "sample_coverage", "object_coverage"):
        one = BoxSampler(
            scale=(0.1, 1),
            aspect_ratio=(0.5, 2),
            max_sample=3,
            jaccard_overlap=Bounds(least) if name == "jaccard_overlap" else Bounds(),
            sample_coverage=Bounds(least) if name == "sample_coverage" else Bounds(),
            object_coverage=Bounds(most=least) if name == "object_coverage" else Bounds(),
        )
        kept = one(targets, draws)
        assert len(kept) <= 3
        measures = {
            "jaccard_overlap": jaccard(kept, targets).max(axis=1, initial=0) + 1e-6 >= least,
            "sample_coverage": coverage(kept, targets).max(axis=1, initial=0) + 1e-6 >= least,
            "object_coverage": coverage(targets, kept).min(axis=0, initial=1) - 1e-6 <= least,
        }
        assert measures[name].all()
        assert all(row in plain.boxes(draws).tolist() for row in kept.tolist())


def test_the_first_boxes_that_meet_the_constraint_are_kept() -> None:
    one = sampler(
        "sampler { min_scale: 0.5 max_scale: 0.5 } max_sample: 2 sample_constraint { min_object_coverage: 1 }"
    )
    draws = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0.1, 0], [0, 0, 0, 0.1]])
    found = one(boxes_of((0.1, 0.1, 0.4, 0.4)), draws)
    np.testing.assert_allclose(found, [[0, 0, 0.5, 0.5], [0.05, 0, 0.55, 0.5]])


def test_without_objects_only_a_sampler_without_constraint_finds_boxes() -> None:
    draws = np.full((3, 4), 0.5)
    none = np.empty((0, 4))
    assert len(sampler("max_sample: 2")(none, draws)) == 2
    assert len(sampler("sample_constraint { max_jaccard_overlap: 1 }")(none, draws)) == 0


def test_all_bounds_must_hold_for_one_and_the_same_object() -> None:
    # the window is the left half: it lies in the first object, which it covers half of, and covers the second
    one = sampler(
        "sampler { min_scale: 0.5 max_scale: 0.5 min_aspect_ratio: 0.25 max_aspect_ratio: 0.25 } "
        "sample_constraint { min_sample_coverage: 1 min_object_coverage: 1 }"
    )
    draws = np.array([[0, 0, 0, 0.0]])
    np.testing.assert_allclose(one.boxes(draws), [[0, 0, 0.25, 1]])
    apart = boxes_of((0, 0, 1, 1), (0.1, 0.1, 0.2, 0.2))
    assert len(one(apart, draws)) == 0
    assert len(one(boxes_of((0, 0, 0.25, 1)), draws)) == 1


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("sampler { min_scale: 0 }", "0 < min_scale <= max_scale <= 1, got 0 and 1"),
        ("sampler { max_scale: 2 }", "0 < min_scale <= max_scale <= 1, got 1 and 2"),
        (
            "sampler { min_aspect_ratio: 2 max_aspect_ratio: 1 }",
            "max_aspect_ratio <= a finite number, got 2 and 1",
        ),
        ("sampler { max_aspect_ratio: inf }", "got 1 and inf"),
        (
            "sample_constraint { min_jaccard_overlap: 0.9 max_jaccard_overlap: 0.1 }",
            "got min_jaccard_overlap 0.9, max_jaccard_overlap 0.1",
        ),
        ("sample_constraint { min_object_coverage: 1.5 }", "got min_object_coverage 1.5"),
    ],
)
def test_ranges_that_hold_nothing_are_refused(spec: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sampler(spec)
    assert str(caught.value).startswith("net.prototxt:7: ")
    assert told in str(caught.value)


# --- resizing


def test_warping_leaves_shares_as_they_are_and_cuts_them_at_the_image() -> None:
    resize = Resize(fit=Fit.WARP, height=10, width=30)
    found = resize.moved(boxes_of((0.1, 0.2, 0.3, 0.4), (-0.1, 0.5, 1.2, 1.3)), (50, 70))
    np.testing.assert_allclose(found, [[0.1, 0.2, 0.3, 0.4], [0, 0.5, 1, 1]])
    assert resize(np.zeros((50, 70, 3), np.uint8), 0.0).shape == (10, 30, 3)


def test_a_wide_image_gets_a_border_above_and_below() -> None:
    resize = Resize(fit=Fit.FIT_LARGE_SIZE_AND_PAD, height=40, width=40, pad_values=(1, 2, 3))
    image = resize(np.full((10, 20, 3), 9, np.uint8), 0.0)
    assert image.shape == (40, 40, 3)
    assert (image[10:30] == 9).all()
    assert (image[:10] == (1, 2, 3)).all()
    assert (image[30:] == (1, 2, 3)).all()
    found = resize.moved(boxes_of((0.1, 0, 0.3, 1), (0, 0.5, 1, 0.75)), (10, 20))
    np.testing.assert_allclose(found, [[0.1, 0.25, 0.3, 0.75], [0, 0.5, 1, 0.625]])


def test_a_high_image_gets_a_border_on_both_sides() -> None:
    resize = Resize(fit=Fit.FIT_LARGE_SIZE_AND_PAD, height=20, width=40)
    image = resize(np.full((10, 10, 1), 9, np.uint8), 0.0)
    assert image.shape == (20, 40, 1)
    assert (image[:, 10:30] == 9).all()
    assert not image[:, :10].any()
    found = resize.moved(boxes_of((0, 0.1, 1, 0.2)), (10, 10))
    np.testing.assert_allclose(found, [[0.25, 0.1, 0.75, 0.2]])


@pytest.mark.parametrize(
    ("mode", "edge"), [("MIRRORED", [2, 1, 0, 1, 2]), ("REPEAT_NEAREST", [0, 0, 0, 1, 2])]
)
def test_a_border_may_go_on_with_the_image(mode: str, edge: list[int]) -> None:
    param = pb.ResizeParameter()
    text.parse(f"resize_mode: FIT_LARGE_SIZE_AND_PAD height: 9 width: 5 pad_mode: {mode}", param)
    image = np.repeat(np.arange(5, dtype=np.uint8), 5).reshape(5, 5, 1)
    found = Resize.from_param(param, "here")(image, 0.0)
    assert found[:5, 0, 0].tolist() == edge


def test_the_smaller_side_fits_where_the_image_goes_beyond() -> None:
    resize = Resize(fit=Fit.FIT_SMALL_SIZE, height=300, width=300)
    assert resize.output_size((375, 500)) == (300, 400)
    assert resize.output_size((500, 375)) == (400, 300)
    assert resize.output_size((100, 100)) == (300, 300)
    assert resize(np.zeros((50, 100, 3), np.uint8), 0.0).shape == (300, 600, 3)


def test_boxes_may_be_told_as_shares_of_another_size() -> None:
    resize = Resize(fit=Fit.FIT_SMALL_SIZE, height=300, width=300, box_size=(150, 200))
    found = resize.told(boxes_of((0.1, 0.1, 1, 1)), (100, 200), (0, 0, 0.5, 1))
    # the image becomes 300 x 600, the crop 300 x 300, a box in it is told by 150 x 200
    np.testing.assert_allclose(found, [[0.15, 0.2, 1.5, 2]])


def test_the_draw_chooses_the_interpolation() -> None:
    param = pb.ResizeParameter()
    text.parse("height: 2 width: 2 interp_mode: NEAREST interp_mode: AREA", param)
    resize = Resize.from_param(param, "here")
    image = np.arange(0, 64, 4, dtype=np.uint8).reshape(4, 4, 1)
    assert resize(image, 0.4)[:, :, 0].tolist() == [[0, 8], [32, 40]]
    assert resize(image, 0.6)[:, :, 0].tolist() == [[10, 18], [42, 50]]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("height: 3", "height and width above 0, got 3 and 0"),
        ("height: 3 width: 3 prob: 0.5", "prob must be 1, got 0.5"),
        ("height: 3 width: 3 height_scale: 5", "together, got 5 and 0"),
        ("height: 3 width: 3 height_scale: 5 width_scale: 5", "unless resize_mode is FIT_SMALL_SIZE"),
    ],
)
def test_resizing_that_cannot_be_done_is_refused(spec: str, told: str) -> None:
    param = pb.ResizeParameter()
    text.parse(spec, param)
    with pytest.raises(ConfigError, match=told):
        Resize.from_param(param, "here")
