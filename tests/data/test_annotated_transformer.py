"""An image and the boxes of its objects go through the same changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.data.annotated import AnnotatedRecord, decode_annotated
from dtrain.data.annotated_sampling import BoxSampler
from dtrain.data.annotated_settings import AnnotatedSettings
from dtrain.data.annotated_transformer import AnnotatedTransformer
from dtrain.data.transform_kernels import Floats
from dtrain.errors import ConfigError, DataError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.annotated_records import Object, annotated

HEIGHT, WIDTH = 60, 80
GROUND, OBJECT = 50, 200

SSD = """
mirror: true
resize_param { height: 64 width: 48 interp_mode: NEAREST }
expand_param { prob: 0.5 max_expand_ratio: 3 }
emit_constraint { emit_type: CENTER }
"""
SAMPLERS = (
    "max_sample: 1 max_trials: 1",
    """sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
    sample_constraint { min_jaccard_overlap: 0.1 } max_sample: 1 max_trials: 50""",
)


def transformer(spec: str, *samplers: str, train: bool = True, seed: int = 1) -> AnnotatedTransformer:
    param = pb.TransformationParameter()
    text.parse(spec, param)
    made = []
    for sampler in samplers:
        message = pb.BatchSampler()
        text.parse(sampler, message)
        made.append(BoxSampler.from_param(message, "here"))
    return AnnotatedTransformer(
        AnnotatedSettings.from_param(param, made, train=train, seed=seed, where="net:1"), "net:1"
    )


def painted(
    *boxes: tuple[float, float, float, float], channels: int = 3, height: int = HEIGHT, width: int = WIDTH
) -> AnnotatedRecord:
    """A grey image with each box of it filled."""
    pixels = np.full((channels, height, width), GROUND, np.uint8)
    for xmin, ymin, xmax, ymax in boxes:
        rows = slice(round(ymin * height), round(ymax * height))
        pixels[:, rows, round(xmin * width) : round(xmax * width)] = OBJECT
    return record(pixels, [(1, box) for box in boxes])


def record(pixels: np.ndarray, objects: list[Object]) -> AnnotatedRecord:
    return decode_annotated(annotated(pixels, objects).SerializeToString(), "source: record 0")


def result(made: AnnotatedTransformer, source: AnnotatedRecord, sample: int) -> tuple[Floats, Floats]:
    """The image, and the rows of its objects."""
    cut = made.cut(source, sample)
    out = np.full(cut.shape, np.nan, np.float32)
    made.write(cut, out)
    return out, cut.objects.rows(0)


def test_without_settings_pixels_and_boxes_stay_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    out, rows = result(transformer(""), record(pixels, [(3, (0.1, 0.2, 0.3, 0.4))]), 5)
    np.testing.assert_array_equal(out, pixels)
    np.testing.assert_allclose(rows, [[0, 3, 0, 0.1, 0.2, 0.3, 0.4, 0]], rtol=1e-6)


def test_mean_values_and_scale_are_those_of_each_channel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    spec = "mean_value: 10 mean_value: 20 mean_value: 30 scale: 0.5"
    out, _ = result(transformer(spec), record(pixels, []), 0)
    np.testing.assert_allclose(out, (pixels - np.array([10.0, 20, 30])[:, None, None]) * 0.5)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**40),
    st.integers(0, 2**31),
    st.sampled_from(("", "resize_mode: FIT_LARGE_SIZE_AND_PAD", "resize_mode: FIT_SMALL_SIZE")),
    st.booleans(),
)
def test_boxes_lie_where_their_objects_are(sample: int, seed: int, mode: str, crop: bool) -> None:
    spec = SSD.replace("resize_param {", f"resize_param {{ {mode} ") + ("crop_size: 40" if crop else "")
    made = transformer(spec, *SAMPLERS, seed=seed)
    box = (0.25, 0.2, 0.75, 0.8)
    out, rows = result(made, painted(box, height=240, width=320), sample)
    ys, xs = np.nonzero(out[0] == OBJECT)
    if len(rows) == 0:
        return  # its centre was cut away
    assert len(rows) == 1
    height, width = out.shape[1:]
    found = np.array([xs.min() / width, ys.min() / height, (xs.max() + 1) / width, (ys.max() + 1) / height])
    # a pixel of the cut image may be several of the result
    np.testing.assert_allclose(rows[0, 3:7], found, atol=0.08)


def test_most_samples_of_an_object_keep_it_and_differ() -> None:
    made = transformer(SSD, *SAMPLERS)
    results = [result(made, painted((0.25, 0.2, 0.75, 0.8)), sample) for sample in range(40)]
    assert sum(len(rows) for _, rows in results) > 30
    assert len({rows.tobytes() for _, rows in results}) > 20


def test_a_sample_is_a_function_of_seed_and_number() -> None:
    source = painted((0.25, 0.2, 0.75, 0.8))
    one, same, other = (transformer(SSD, *SAMPLERS, seed=seed) for seed in (3, 3, 4))
    for sample in (0, 17):
        for got, wanted in zip(result(one, source, sample), result(same, source, sample), strict=True):
            np.testing.assert_array_equal(got, wanted)
    drawn = [[made.cut(source, n).objects.boxes.tolist() for n in range(8)] for made in (one, other)]
    assert drawn[0] != drawn[1]


def test_an_expanded_image_lies_on_a_canvas_of_the_mean() -> None:
    made = transformer("mean_value: 7 expand_param { prob: 1 max_expand_ratio: 4 }")
    ratios = []
    for sample in range(30):
        out, rows = result(made, painted((0.0, 0.0, 1.0, 1.0)), sample)
        inside = out[0] == OBJECT - 7
        assert inside.sum() == HEIGHT * WIDTH
        assert (out[0][~inside] == 0).all()  # the mean, less the mean
        ys, xs = np.nonzero(inside)
        height, width = out.shape[1:]
        expected = [xs[0] / width, ys[0] / height, (xs[-1] + 1) / width, (ys[-1] + 1) / height]
        np.testing.assert_allclose(rows[0, 3:7], expected, rtol=1e-6)
        ratios.append(height / HEIGHT)
    assert 1 <= min(ratios) < 1.7
    assert 3.3 < max(ratios) <= 4


def test_the_mirrored_half_of_the_samples_have_their_boxes_mirrored() -> None:
    made = transformer("mirror: true", train=False)  # random in TEST too, as in Caffe
    boxes = {result(made, painted((0.125, 0.2, 0.5, 0.8)), n)[1][0, 3] for n in range(40)}
    assert boxes == {0.125, 0.5}


def test_crops_are_central_in_test_and_random_in_train() -> None:
    source = painted((0.25, 0.0, 0.75, 1.0))  # columns 20 to 60
    _, rows = result(transformer("crop_h: 30 crop_w: 40", train=False), source, 0)
    np.testing.assert_allclose(rows[0, 3:7], [0, 0, 1, 1])
    lefts = {result(transformer("crop_h: 30 crop_w: 40"), source, n)[1][0, 3] for n in range(30)}
    assert len(lefts) > 5


def test_colours_change_the_image_and_not_the_border() -> None:
    made = transformer(
        "distort_param { brightness_prob: 1 brightness_delta: 40 } mean_value: 128 "
        "expand_param { prob: 1 max_expand_ratio: 2 }"
    )
    shades = set()
    for sample in range(10):
        out, _ = result(made, painted((0.0, 0.0, 1.0, 1.0)), sample)
        found = set(np.unique(out[0]).tolist())
        assert 0 in found  # the border
        assert len(found) == 2
        shades |= found
    assert len(shades) > 8
    assert max(shades) <= OBJECT + 40 - 128


def test_a_sampler_crops_to_boxes_with_the_overlap_that_it_asks_for() -> None:
    made = transformer(
        "resize_param { height: 32 width: 32 }",
        """sampler { min_scale: 0.1 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
        sample_constraint { min_object_coverage: 1 } max_sample: 1 max_trials: 50""",
    )
    source = painted((0.4, 0.4, 0.6, 0.6))
    widths = []
    for sample in range(20):
        _, rows = result(made, source, sample)
        assert rows[0, 3] >= 0
        assert rows[0, 5] <= 1
        widths.append(rows[0, 5] - rows[0, 3])
    # the object is 0.2 of the whole image: never cut off, often made larger
    assert min(widths) > 0.2 - 1e-6
    assert max(widths) > 0.3


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("expand_param { max_expand_ratio: 1 }", "max_expand_ratio must be above 1, got 1"),
        ("expand_param { prob: 2 max_expand_ratio: 2 }", "prob must be from 0 to 1, got 2"),
        ("emit_constraint { emit_type: MIN_OVERLAP emit_overlap: 1 }", "emit_overlap must be at least 0 and"),
        ("noise_param { }", "noise_param must be absent"),
        ("random_resize_param { }", "random_resize_param must be absent where images have boxes"),
        ("distort_param { contrast_prob: 1 contrast_lower: 2 contrast_upper: 1 }", "contrast_lower must be"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(spec: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        transformer(spec)
    assert str(caught.value).startswith("net:1: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (
            "crop_size: 61",
            "crop must be at most the image's height x width, got 61 x 61 for 60 x 80 in source",
        ),
        ("mean_value: [1, 2]", "got 2 values for 1 channels in source: record 0"),
        ("distort_param { }", "distort_param must be absent unless images have 3 channels, got 1 in source"),
        (
            "resize_param { height: 2 width: 2 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: [1, 2] }",
            "pad_value must be given once or once a channel",
        ),
    ],
)
def test_images_that_do_not_fit_are_named(spec: str, told: str) -> None:
    with pytest.raises(DataError) as caught:
        transformer(spec).cut(painted(channels=1), 0)
    assert told in str(caught.value)


def test_a_sample_may_show_nothing_but_the_border() -> None:
    made = transformer(
        "mean_value: 9 expand_param { prob: 1 max_expand_ratio: 8 } resize_param { height: 4 width: 5 }",
        "sampler { min_scale: 0.05 max_scale: 0.05 } max_sample: 1",
    )
    empty = 0
    for sample in range(20):
        out, rows = result(made, painted((0.0, 0.0, 1.0, 1.0)), sample)
        assert out.shape == (3, 4, 5)
        assert bool(len(rows)) == bool(out.any())
        empty += not out.any()
    assert empty > 5


def test_grey_images_pass_as_coloured_ones_do() -> None:
    made = transformer(SSD, *SAMPLERS)
    for sample in range(10):
        grey, grey_rows = result(made, painted((0.25, 0.2, 0.75, 0.8), channels=1), sample)
        colour, rows = result(made, painted((0.25, 0.2, 0.75, 0.8)), sample)
        np.testing.assert_array_equal(grey[0], colour[2])
        np.testing.assert_array_equal(grey_rows, rows)


def test_a_message_that_is_no_annotated_datum_is_told() -> None:
    plain = pb.Datum(channels=1, height=1, width=1, data=b"\0").SerializeToString()
    with pytest.raises(DataError, match=r"here: must be an AnnotatedDatum with a datum, got none; .*Data"):
        decode_annotated(plain, "here")
    with pytest.raises(DataError, match=r"here: must be an AnnotatedDatum message, got 3 bytes"):
        decode_annotated(b"\xff\xff\xff", "here")
    untyped = annotated(np.zeros((1, 1, 1), np.uint8), has_type=False).SerializeToString()
    with pytest.raises(DataError, match="type must be BBOX, got none; set annotated_data_param"):
        decode_annotated(untyped, "here")
    decode_annotated(untyped, "here", has_type=True)
    nan = annotated(np.zeros((1, 1, 1), np.uint8), [(1, (0, 0, float("nan"), 1))]).SerializeToString()
    with pytest.raises(DataError, match="boxes must be finite"):
        decode_annotated(nan, "here")
