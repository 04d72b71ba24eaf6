"""caffe.io: messages, images and the Transformer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import ConfigError, DataError
from dtrain.pycaffe.proto import caffe_pb2
from dtrain.pycaffe.resampling import corner_to_corner, sample

RNG = np.random.default_rng(0)


# -- messages


def test_a_blob_of_the_old_form_has_four_axes() -> None:
    data = np.zeros((10, 10))
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=10, width=10)
    blob.data.extend(list(data.flatten()))
    assert caffe.io.blobproto_to_array(blob).shape == (1, 1, 10, 10)


def test_arrays_and_their_gradients_go_through_blobs() -> None:
    data, diff = RNG.standard_normal((2, 3, 5)).astype(np.float32), np.ones((2, 3, 5))
    blob = caffe.io.array_to_blobproto(data, diff)
    assert list(blob.shape.dim) == [2, 3, 5]
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob), data)
    np.testing.assert_array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), diff)
    assert caffe.io.array_to_blobproto(np.arange(3)).data == [0, 1, 2]


def test_a_blob_whose_values_do_not_fit_its_shape_is_a_value_error() -> None:
    blob = caffe_pb2.BlobProto(data=list(range(100)))
    with pytest.raises(ValueError, match=r"must have 1 .* values, got 100"):
        caffe.io.blobproto_to_array(blob)


def test_a_scalar_goes_through_a_blob() -> None:
    assert caffe.io.blobproto_to_array(caffe.io.array_to_blobproto(np.array(123.0))) == 123


def test_lists_of_arrays_go_through_bytes() -> None:
    arrays = [np.ones((2, 2)), np.zeros(3)]
    text = caffe.io.arraylist_to_blobprotovector_str(arrays)
    for array, back in zip(arrays, caffe.io.blobprotovector_str_to_arraylist(text), strict=True):
        np.testing.assert_array_equal(array, back)


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_images_go_through_datums(kind: type) -> None:
    image = RNG.integers(0, 255, (3, 4, 5)).astype(kind)
    datum = caffe.io.array_to_datum(image, 7)
    assert (datum.channels, datum.height, datum.width, datum.label) == (3, 4, 5, 7)
    back = caffe.io.datum_to_array(caffe_pb2.Datum.FromString(datum.SerializeToString()))
    np.testing.assert_array_equal(back, image)
    assert back.dtype == (np.uint8 if kind is np.uint8 else np.float64)
    back[...] = 0  # a copy, to be changed


def test_a_datum_without_a_label_is_shorter() -> None:
    image = np.ones((10, 10, 3))
    with_label, without = (caffe.io.array_to_datum(image, label) for label in (1, None))
    assert len(with_label.SerializeToString()) > len(without.SerializeToString())
    with pytest.raises(ValueError, match=r"3 axes \(C, H, W\), got shape \(2, 2\)"):
        caffe.io.array_to_datum(np.ones((2, 2)))
    with pytest.raises(ValueError, match="got an encoded image"):
        caffe.io.datum_to_array(caffe_pb2.Datum(encoded=True, data=b"\xff"))


# -- images


@pytest.fixture
def picture(tmp_path: Path) -> dict[str, str]:
    """Images of every kind, in OpenCV's order of channels."""
    cv2 = pytest.importorskip("cv2")
    colour = np.zeros((2, 3, 3), np.uint8)
    colour[0, 0] = (0, 51, 255)  # blue 0, green 0.2, red 1
    alpha = np.dstack([colour, np.full((2, 3), 9, np.uint8)])
    kinds = {"colour": colour, "alpha": alpha, "grey": np.full((2, 3), 102, np.uint8)}
    kinds["deep"] = np.full((2, 3), 13107, np.uint16)
    paths = {name: str(tmp_path / f"{name}.png") for name in kinds}
    for name, pixels in kinds.items():
        cv2.imwrite(paths[name], pixels)
    return paths


def test_images_are_loaded_as_rgb_from_0_to_1(picture: dict[str, str]) -> None:
    for name in ("colour", "alpha"):
        image = caffe.io.load_image(picture[name])
        assert (image.shape, image.dtype) == ((2, 3, 3), np.float32)
        np.testing.assert_allclose(image[0, 0], [1, 0.2, 0])
        grey = caffe.io.load_image(picture[name], color=False)
        np.testing.assert_allclose(grey[0, 0], [0.2125 + 0.2 * 0.7154], rtol=1e-6)
    for name, value in (("grey", 0.4), ("deep", 0.2)):
        np.testing.assert_allclose(caffe.io.load_image(picture[name]), np.full((2, 3, 3), value), rtol=1e-6)
        np.testing.assert_allclose(
            caffe.io.load_image(picture[name], False), np.full((2, 3, 1), value), rtol=1e-6
        )


def test_a_file_that_is_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.png: must be a readable image"):
        caffe.io.load_image(tmp_path / "a.png")
    tmp_path.joinpath("b.png").write_bytes(b"text")
    with pytest.raises(DataError, match=r"b\.png: must be an image that OpenCV decodes, got 4 other bytes"):
        caffe.io.load_image(tmp_path / "b.png")


def test_colour_images_are_resized_by_their_centres() -> None:
    """4 pixels to 2: each the mean of two. 2 to 4: a quarter inwards; outside is the lowest value.

    old  0 . . . . 4          new centres at -0.25, 0.25, 0.75, 1.25 of the old
    """
    row = np.array([0, 2, 4, 6], np.float32)
    image = np.tile(row[None, :, None], (1, 1, 3))
    np.testing.assert_allclose(caffe.io.resize_image(image, (1, 2))[0, :, 0], [1, 5], atol=1e-6)
    wide = caffe.io.resize_image(np.array([[[1.0], [5.0]]]), (1, 4))
    np.testing.assert_allclose(wide[0, :, 0], [1, 2, 4, 4], atol=1e-6)
    nearest = caffe.io.resize_image(image, (1, 8), interp_order=0)
    np.testing.assert_array_equal(nearest[0, :, 0], np.repeat(row, 2))
    assert caffe.io.resize_image(image, (5, 7), interp_order=3).shape == (5, 7, 3)


def test_a_constant_image_stays_constant() -> None:
    np.testing.assert_array_equal(
        caffe.io.resize_image(np.full((2, 2, 3), 7.0), (5, 5)), np.full((5, 5, 3), 7)
    )


def test_images_of_many_channels_are_resized_as_scipy_does() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    image = RNG.random((6, 9, 5), np.float32)
    for order in (0, 1):
        expected = ndimage.zoom(image, (11 / 6, 4 / 9, 1), order=order)
        np.testing.assert_allclose(caffe.io.resize_image(image, (11, 4), order), expected, atol=1e-6)
    np.testing.assert_array_equal(corner_to_corner(5, 1), [0])
    assert sample(image, np.array([0.5]), np.array([2.0]), 1).shape == (1, 1, 5)


def test_an_order_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match="interp_order must be one of 0, 1, 3, got 2"):
        caffe.io.resize_image(np.zeros((2, 2, 3)), (3, 3), interp_order=2)
    with pytest.raises(ValueError, match=r"3 axes \(H, W, K\), got shape \(2, 2\)"):
        caffe.io.resize_image(np.zeros((2, 2)), (3, 3))


def test_oversampling_gives_corners_centre_and_mirrors() -> None:
    image = np.arange(25, dtype=np.float32).reshape(5, 5, 1)
    crops = caffe.io.oversample([image, image + 100], (3, 3))
    assert crops.shape == (20, 3, 3, 1)
    assert crops[:5, 0, 0, 0].tolist() == [0, 2, 10, 12, 6]
    np.testing.assert_array_equal(crops[5:10], crops[:5, :, ::-1])
    np.testing.assert_array_equal(crops[10:], crops[:10] + 100)
    with pytest.raises(ValueError, match=r"crops must fit into \(5, 5\)"):
        caffe.io.oversample([image], (6, 3))


# -- the Transformer


@pytest.fixture
def transformer() -> caffe.io.Transformer:
    made = caffe.io.Transformer({"data": (1, 3, 4, 5)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([104.0, 117.0, 123.0]))
    made.set_input_scale("data", 0.5)
    return made


def test_preprocessing_makes_blobs_of_images(transformer: caffe.io.Transformer) -> None:
    image = RNG.random((4, 5, 3), np.float32)
    before = image.copy()
    out = transformer.preprocess("data", image)
    expected = (255 * image[:, :, ::-1] - [104, 117, 123]) * 0.5
    np.testing.assert_allclose(out, expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-4)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(image, before)
    np.testing.assert_allclose(transformer.deprocess("data", out[np.newaxis]), image, rtol=1e-4, atol=1e-5)


def test_preprocessing_resizes_first(transformer: caffe.io.Transformer) -> None:
    image = RNG.random((9, 7, 3), np.float32)
    small = caffe.io.resize_image(image, (4, 5))
    np.testing.assert_array_equal(
        transformer.preprocess("data", image), transformer.preprocess("data", small)
    )


def test_a_mean_image_is_resized_to_the_input() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 4, 4)})
    mean = RNG.random((3, 8, 8))
    transformer.set_mean("data", mean)
    small = caffe.io.resize_image(mean.transpose(1, 2, 0), (4, 4)).transpose(2, 0, 1)
    np.testing.assert_array_equal(transformer.mean["data"], small)
    grey = caffe.io.Transformer({"data": (1, 1, 4, 4)})
    grey.set_mean("data", np.ones((4, 4)))
    assert grey.mean["data"].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.preprocess("image", np.zeros((4, 5, 3))), 'unknown input "image"'),
        (lambda t: t.set_transpose("data", (1, 0)), r"transpose must have 3 axes, got \(1, 0\)"),
        (lambda t: t.set_channel_swap("data", (1, 0)), r"channel_swap must have 3 channels, got \(1, 0\)"),
        (lambda t: t.set_mean("data", np.zeros(4)), "mean must have 3 channels, got 4"),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 4, 5))), "mean must have 1 to 3 axes"),
    ],
)
def test_a_wrong_setting_is_told(transformer: caffe.io.Transformer, call: object, message: str) -> None:
    with pytest.raises((ConfigError, ValueError), match=message):
        call(transformer)  # type: ignore[operator]
