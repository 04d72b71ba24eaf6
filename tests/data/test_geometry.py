"""Images are cut out and scaled as asked for, the same way whatever reads them."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dtrain.data.colour_jitter import ColourJitter
from dtrain.data.geometry import MIDDLE as MIDDLE_DRAW
from dtrain.data.geometry import Middle, RandomArea, ShortSide, Warp, reduction
from dtrain.data.image_list import ImageListReader
from dtrain.data.jpeg_header import jpeg_header
from dtrain.data.record import Record
from dtrain.data.resize_kernels import resized
from dtrain.data.transform_reference import resized_pixels
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import ConfigError, DataError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.sources import images, jpeg_of

draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=24, max_size=24)
sizes = st.tuples(st.integers(1, 700), st.integers(1, 700))
MIDDLE = [MIDDLE_DRAW] * 24


def smooth(height, width):
    """An image whose values tell where they are: rows in channel 0, columns in channel 1."""
    rows, columns = np.linspace(0, 255, height), np.linspace(0, 255, width)
    image = np.zeros((3, height, width), np.uint8)
    image[0], image[1], image[2] = rows[:, None], columns[None], 128
    return image


def transformer(fields, train=True, seed=1):
    param = pb.TransformationParameter()
    text.parse(fields, param)
    return Transformer(TransformSettings.from_param(param, train=train, seed=seed, where="layer"), "layer")


def applied(transform, pixels, sample=0, encoded=None):
    record = Record("r", (0.0,), None if encoded else pixels, encoded=encoded)
    out = np.full(transform.output_shape(record), np.nan, np.float32)
    transform.apply(record, sample, out)
    return out


@settings(deadline=None)
@given(image=sizes, crop=st.integers(1, 64), draws=draws)
def test_rectangles_lie_inside_the_image(image, crop, draws):
    for geometry in (ShortSide(64, 100), RandomArea(0.08, 1, 4 / 3, 10), Middle(), Warp(5, 6)):
        top, left, height, width = geometry.rectangle(image, (crop, crop), draws)
        assert height > 0
        assert width > 0
        assert 0 <= top <= image[0] - height
        assert 0 <= left <= image[1] - width


def test_a_short_side_gives_the_crop_of_the_resized_image():
    assert ShortSide(256, 256).rectangle((375, 500), (227, 227), MIDDLE) == (21, 83, 333, 333)
    assert ShortSide(256, 512).rectangle((512, 600), (224, 224), [0, 0, 0, *MIDDLE]) == (0, 0, 448, 448)
    assert ShortSide(256, 512).rectangle((512, 600), (224, 224), [0, 0, 0.9999, *MIDDLE]) == (0, 0, 224, 224)
    out = applied(
        transformer("random_resize_param { min_size: 64 max_size: 64 } crop_size: 32", False),
        smooth(128, 256),
    )
    # the middle half of the rows, a quarter of the columns
    np.testing.assert_allclose(out[0, [0, -1]].mean(axis=1), [255 / 4, 255 * 3 / 4], atol=3)
    np.testing.assert_allclose(out[1][:, [0, -1]].mean(axis=0), [255 * 3 / 8, 255 * 5 / 8], atol=3)


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("size", [(31, 40), (20, 20), (90, 77), (1, 1)])
@pytest.mark.parametrize("rectangle", [(0, 0, 48, 57), (5, 9, 31, 40), (47, 56, 1, 1)])
def test_one_pass_resizes_as_the_definition_does(rectangle, size, mirror):
    pixels = images(1, (3, 48, 57))[0]
    top, left, height, width = rectangle
    means, scale = np.array([104, 117, 123.5], np.float32), 0.017
    out = np.full((3, *size), np.nan, np.float32)
    image = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    resized(image, top, left, height, width, mirror, means, scale, out)
    expected = resized_pixels(pixels[:, top : top + height, left : left + width], *size)
    expected = (expected - means[:, None, None]) * scale
    np.testing.assert_allclose(out, expected[:, :, ::-1] if mirror else expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(31, 40), (90, 77)])
def test_the_definition_of_resizing_is_opencv_within_a_level(size):
    pixels = images(1, (3, 48, 57))[0]
    theirs = cv2.resize(pixels.transpose(1, 2, 0), (size[1], size[0])).transpose(2, 0, 1)
    np.testing.assert_allclose(resized_pixels(pixels, *size), theirs, rtol=0, atol=1)


def test_random_areas_are_spread_over_their_range():
    rng = np.random.default_rng(0)
    shares, forms = [], []
    for _ in range(2000):
        found = RandomArea(0.08, 1.0, 4 / 3, 10).rectangle((400, 500), (224, 224), rng.random(24).tolist())
        shares.append(found.height * found.width / 200_000)
        forms.append(found.width / found.height)
    assert 0.08 - 0.01 < min(shares) < 0.1
    assert max(shares) > 0.9
    assert 0.75 - 0.02 < min(forms) < 0.77
    assert 1.3 < max(forms) < 1.33 + 0.02
    assert 0.35 < np.mean(shares) < 0.55
    # an image that no form fits gives its middle
    assert RandomArea(0.9, 1.0, 4 / 3, 10).rectangle((100, 1000), (50, 50), MIDDLE) == (0, 450, 100, 100)


@pytest.mark.parametrize(
    "fields",
    [
        "random_resize_param { min_size: 20 max_size: 40 } crop_size: 16",
        "img_rand_resize_lower: 20 img_rand_resize_upper: 40 crop_size: 16",
        "random_aspect_ratio_param { min_area_ratio: 0.08 aspect_ratio_change: 1.3 } crop_size: 16",
    ],
)
def test_what_is_random_depends_on_seed_and_sample_alone(fields):
    pixels = smooth(48, 64)
    encoded = jpeg_of(pixels)
    first = [applied(transformer(fields), pixels, n) for n in range(8)]
    again = [applied(transformer(fields), pixels, n) for n in reversed(range(8))][::-1]
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({image.tobytes() for image in first}) == 8
    assert applied(transformer(fields, seed=2), pixels).tobytes() != first[0].tobytes()
    decoded = [applied(transformer(fields + " force_color: true"), None, n, encoded) for n in range(8)]
    np.testing.assert_allclose(np.array(decoded), np.array(first), atol=9)


def test_test_images_are_the_middle_of_the_range_every_time():
    fields = "random_resize_param { min_size: 20 max_size: 40 } crop_size: 16"
    results = {applied(transformer(fields, train=False), smooth(48, 64), n).tobytes() for n in range(5)}
    assert len(results) == 1


def test_a_warp_is_cut_as_any_image_of_that_size():
    pixels = images(1, (3, 40, 60))[0]
    warped = cv2.resize(pixels.transpose(1, 2, 0), (24, 20)).transpose(2, 0, 1)
    plain = applied(transformer("resize_param { height: 20 width: 24 }"), pixels)
    np.testing.assert_array_equal(plain, warped)
    cut = applied(transformer("resize_param { height: 20 width: 24 } crop_size: 10", train=False), pixels)
    np.testing.assert_array_equal(cut, warped[:, 5:15, 7:17])
    grey = applied(transformer("resize_param { height: 20 width: 24 }"), pixels[:1])
    np.testing.assert_array_equal(grey[0], warped[0])


def test_large_jpegs_are_shrunk_while_they_are_decoded(monkeypatch):
    from dtrain.data import sample_writer as module

    asked = []
    decode = module.decode_image
    monkeypatch.setattr(
        module,
        "decode_image",
        lambda data, colour, where, shrink: decode(
            data, colour, where, lambda *size: (asked.append(shrink(*size)), asked[-1])[1]
        ),
    )
    fields = "random_resize_param { min_size: 64 max_size: 64 } crop_size: 56 force_color: true"
    for size, shrink in (((80, 100), 1), ((130, 200), 2), ((300, 400), 4), ((600, 700), 8)):
        asked.clear()
        pixels = smooth(*size)
        out = np.empty((3, 56, 56), np.float32)
        transform = transformer(fields, train=False)
        transform.apply(Record("r", (0.0,), encoded=jpeg_of(pixels)), 0, out)
        assert asked == [shrink]
        np.testing.assert_allclose(out, applied(transform, pixels), atol=8)
    assert reduction(Middle().rectangle((1000, 10), (9, 9), MIDDLE), (9, 9)) == 1


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
@settings(max_examples=20, deadline=None)
def test_the_size_of_a_jpeg_is_in_its_header(height, width):
    content = np.frombuffer(jpeg_of(np.zeros((3, height, width), np.uint8)), np.uint8)
    assert jpeg_header(content) == (height, width, 3, False)
    for cut in (0, 3, 10, 100):
        jpeg_header(content[:cut])
    assert jpeg_header(np.frombuffer(b"\x89PNG and more of it", np.uint8)) is None


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ("random_resize_param { min_size: 9 max_size: 8 } crop_size: 4", "must have 0 < lower <= upper"),
        ("random_resize_param { min_size: 8 max_size: 9 }", "crop_size must be given where images keep"),
        (
            "random_resize_param { min_size: 8 max_size: 9 } crop_size: 9",
            "crop_size must be at most the shorter",
        ),
        ("random_aspect_ratio_param { min_area_ratio: 0 } crop_size: 4", "min_area_ratio <= max_area_ratio"),
        (
            "rand_resize_ratio_lower: 2 crop_size: 4",
            "rand_resize_ratio must have 1 <= lower <= upper, got 2 and 0",
        ),
        (
            "vertical_stretch_lower: 2 crop_size: 4",
            "vertical_stretch must have 0 < lower <= upper",
        ),
        ("horizontal_stretch_lower: 0 crop_size: 4", "horizontal_stretch must have 0 < lower <= upper"),
        (
            "img_rand_resize_upper: 9 crop_size: 4",
            "img_rand_resize must have 0 < lower <= upper",
        ),
        ("vertical_stretch_lower: 0.5", "crop_size must be given where images keep"),
        ("allow_upscale: true crop_size: 4", "allow_upscale must be absent unless img_rand_resize_lower"),
        ("resize_param { height: 8 }", "resize_param must have height and width, got 8 and 0"),
        ("resize_param { height: 8 width: 8 prob: 0.5 }", "resize_param.prob must be 1"),
        (
            "resize_param { height: 8 width: 8 resize_mode: FIT_LARGE_SIZE_AND_PAD }",
            "must be WARP or FIT_SMALL",
        ),
        ("resize_param { height: 8 width: 8 interp_mode: AREA interp_mode: CUBIC }", "at most once, got 2"),
        (
            "resize_param { height: 8 width: 8 } random_resize_param { min_size: 8 }",
            "at most one way to resize",
        ),
        (
            "distort_param { contrast_prob: 1 contrast_lower: 2 contrast_upper: 1 }",
            "contrast_lower must be from",
        ),
        ("distort_param { hue_prob: 1 hue_delta: -2 }", "hue_delta must be at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, rule):
    with pytest.raises(ConfigError, match=rule):
        transformer(fields)


def jittered(image, **options):
    rng = np.random.default_rng(3)
    return [ColourJitter(**options)(image, rng.random(10).tolist()) for _ in range(200)]


def test_colours_change_within_their_bounds():
    image = np.full((4, 5, 3), (60, 100, 120), np.uint8)
    deltas = [int(out[0, 0, 0]) - 60 for out in jittered(image, brightness_prob=1, brightness_delta=32)]
    assert -32 <= min(deltas) < -28
    assert 28 < max(deltas) <= 32
    factors = [out[0, 0, 1] / 100 for out in jittered(image, contrast_prob=1, contrast=(0.5, 1.5))]
    assert 0.5 <= min(factors) < 0.53
    assert 1.47 < max(factors) <= 1.5
    hsv = [
        cv2.cvtColor(out, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
        for out in jittered(image, hue_prob=1, hue_delta=18)
    ]
    hue, saturation, _ = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
    assert 15 < max(one[0] - hue for one in hsv) <= 19
    hsv = [
        cv2.cvtColor(out, cv2.COLOR_BGR2HSV)[0, 0].astype(int)
        for out in jittered(image, saturation_prob=1, saturation=(0.5, 1.5))
    ]
    assert 0.5 * saturation - 3 <= min(one[1] for one in hsv) < 0.55 * saturation
    orders = {tuple(out[0, 0].tolist()) for out in jittered(image, order_prob=1)}
    assert len(orders) == 6
    unchanged = sum(
        np.array_equal(out, image) for out in jittered(image, brightness_prob=0.5, brightness_delta=9)
    )
    assert 60 < unchanged < 140
    assert image[0, 0].tolist() == [60, 100, 120]


def test_training_images_alone_change_colour():
    fields = "distort_param { brightness_prob: 1 brightness_delta: 32 } crop_size: 8"
    pixels = np.full((3, 8, 8), 100, np.uint8)
    values = {applied(transformer(fields), pixels, n)[0, 0, 0] for n in range(20)}
    assert len(values) > 10
    assert (applied(transformer(fields, train=False), pixels) == 100).all()
    with pytest.raises(DataError, match="distort_param must be absent unless images have 3 channels"):
        applied(transformer(fields), pixels[:1])


def test_listed_images_get_their_short_side(tmp_path):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", smooth(40, 60).transpose(1, 2, 0))[1].tobytes())
    (tmp_path / "list.txt").write_text("a.png 1\n")
    reader = ImageListReader(f"{tmp_path}/list.txt", root_folder=f"{tmp_path}/", short_side=20)
    assert reader.read(0).pixels.shape == (3, 20, 30)
    with pytest.raises(ConfigError, match="got new_height with new_width and short_side"):
        ImageListReader(f"{tmp_path}/list.txt", new_height=4, new_width=4, short_side=20)


@pytest.mark.parametrize(
    ("least", "size"),
    [
        ((0, 0), (40, 60)),
        ((40, 60), (40, 60)),
        ((50, 10), (50, 75)),
        ((50, 90), (60, 90)),
        ((0, 61), (41, 61)),
    ],
)
def test_listed_images_that_are_too_small_are_enlarged_in_their_form(tmp_path, least, size):
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", smooth(40, 60).transpose(1, 2, 0))[1].tobytes())
    (tmp_path / "list.txt").write_text("a.png 1\n")
    reader = ImageListReader(
        f"{tmp_path}/list.txt", root_folder=f"{tmp_path}/", min_height=least[0], min_width=least[1]
    )
    pixels = reader.read(0).pixels
    assert pixels.shape == (3, *size)
    assert (pixels[0, 0].max(), pixels[0, -1].min()) == (0, 255)
    with pytest.raises(ConfigError, match="got short_side and min_height or min_width"):
        ImageListReader(f"{tmp_path}/list.txt", min_width=4, short_side=20)


def stretched(fields, image, sample=0, crop=(8, 8)):
    geometry = transformer(fields + " crop_size: 8").settings.geometry
    draws = np.random.default_rng(sample).random(24).tolist()
    return geometry.scaled(image, crop, draws)


@given(image=st.tuples(st.integers(8, 90), st.integers(8, 90)), sample=st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_stretches_stay_within_their_bounds(image, sample):
    height, width = stretched("rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1", image, sample)
    assert height == width == min(image)
    height, width = stretched("vertical_stretch_lower: 0.5", image, sample)
    assert width == image[1]
    assert max(8, 0.5 * image[0] - 1) <= height <= image[0]
    height, width = stretched("horizontal_stretch_upper: 2", image, sample)
    assert (height, width) == image, "no image is enlarged unasked"
    height, width = stretched("horizontal_stretch_upper: 2 allow_upscale: true", image, sample)
    assert height == image[0]
    assert image[1] <= width <= 2 * image[1]
    fields = "img_rand_resize_lower: 20 img_rand_resize_upper: 30 "
    height, width = stretched(fields + "allow_upscale: true", image, sample)
    assert 20 <= min(height, width) <= 30
    assert abs(height / width - image[0] / image[1]) < 0.06 * image[0] / image[1]
    height, width = stretched(fields, image, sample)
    assert min(height, width) <= min(30, *image)
    height, width = stretched("rand_resize_ratio_lower: 1.5 rand_resize_ratio_upper: 2", (40, 90), sample)
    assert (height, 60 <= width <= 80) == (40, True)


def test_stretching_squares_makes_some_wide_and_some_high():
    fields = "rand_resize_ratio_lower: 2 rand_resize_ratio_upper: 2 allow_upscale: true"
    assert {stretched(fields, (40, 40), n) for n in range(20)} == {(40, 80), (80, 40)}


def test_a_stretched_image_is_cut_where_the_stretched_image_would_be():
    pixels = smooth(60, 120)
    fields = "vertical_stretch_lower: 0.5 vertical_stretch_upper: 0.5 crop_size: 20"
    out = applied(transformer(fields, train=False), pixels)
    whole = cv2.resize(pixels.transpose(1, 2, 0), (120, 30)).transpose(2, 0, 1)
    np.testing.assert_allclose(out, whole[:, 5:25, 50:70], atol=4)
