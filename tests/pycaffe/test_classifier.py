"""caffe.Classifier and caffe.Detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import BackendError, ConfigError
from tests.pycaffe.nets import IMAGES, write_net

RNG = np.random.default_rng(0)
SETTINGS = {"mean": np.array([104.0, 117.0, 123.0]), "raw_scale": 255, "channel_swap": (2, 1, 0)}


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A net, its weights, both in the folder of the test."""
    file = write_net(tmp_path, IMAGES)
    weights = str(tmp_path / "w.caffemodel")
    caffe.Net(file, caffe.TEST).save(weights)
    return file, weights


def by_hand(files: tuple[str, str], images: list[np.ndarray], **settings: object) -> np.ndarray:
    """Probabilities of images of the input's size."""
    net = caffe.Net(*files, caffe.TEST)
    mean, scale = settings.get("mean", np.zeros(3)), settings.get("raw_scale", 1)
    blobs = [(image[:, :, ::-1] * scale - mean).transpose(2, 0, 1) for image in images]
    return net.forward_all(data=np.stack(blobs))["prob"]


def test_predict_takes_the_centre(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files, image_dims=(16, 16), **SETTINGS)
    images = [RNG.random((16, 16, 3), np.float32) for _ in range(3)]
    expected = by_hand(files, [image[2:14, 2:14] for image in images], **SETTINGS)
    np.testing.assert_allclose(classifier.predict(images, oversample=False), expected, rtol=1e-4, atol=1e-6)
    assert classifier.inputs == ["data"]


def test_predict_averages_ten_crops(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files, image_dims=(16, 16), **SETTINGS)
    images = [RNG.random((16, 16, 3), np.float32) for _ in range(2)]
    crops = caffe.io.oversample(images, (12, 12))
    expected = by_hand(files, list(crops), **SETTINGS).reshape(2, 10, 10).mean(1)
    np.testing.assert_allclose(classifier.predict(images), expected, rtol=1e-4, atol=1e-6)


def test_predict_resizes_images_to_the_input(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files)
    images = [RNG.random((30, 20, 3), np.float32), RNG.random((12, 12, 3), np.float32)]
    small = [caffe.io.resize_image(image, (12, 12)).transpose(2, 0, 1) for image in images]
    expected = caffe.Net(*files, caffe.TEST).forward_all(data=np.stack(small))["prob"]
    np.testing.assert_allclose(classifier.predict(images, oversample=False), expected, rtol=1e-4)


@pytest.fixture
def image(tmp_path: Path) -> str:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "image.png"), RNG.integers(0, 255, (40, 50, 3), np.uint8))
    return str(tmp_path / "image.png")


def test_windows_are_classified_one_by_one(files: tuple[str, str], image: str) -> None:
    detector = caffe.Detector(*files, **SETTINGS)
    windows = [np.array([0, 0, 12, 12]), np.array([5, 10, 35, 30]), np.array([20, 20, 32, 32])]
    found = detector.detect_windows([(image, windows), (image, windows[:1])])
    assert [detection["filename"] for detection in found] == [image] * 4
    assert [list(detection["window"]) for detection in found] == [list(w) for w in [*windows, windows[0]]]
    pixels = caffe.io.load_image(image)
    crops = [caffe.io.resize_image(pixels[w[0] : w[2], w[1] : w[3]], (12, 12)) for w in windows]
    expected = by_hand(files, crops, **SETTINGS)
    got = [detection["prediction"] for detection in found]
    np.testing.assert_allclose(got[:3], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(got[3], got[0])
    assert detector.detect_windows([]) == []


def test_context_shows_what_surrounds_a_window(files: tuple[str, str]) -> None:
    """A window of 6 x 6 in the middle of an input of 12, with 3 pixels of context: twice its size, unscaled.

    Source of the arithmetic: R-CNN's im_crop, as pycaffe has it: the box is (ymin .. ymax) + 1 wide.
    """
    detector = caffe.Detector(*files, context_pad=3, **SETTINGS)
    pixels = RNG.random((40, 40, 3), np.float32)
    crop = detector.crop(pixels, np.array([10, 10, 15, 15]))
    assert crop.shape == (12, 12, 3)
    np.testing.assert_allclose(crop, caffe.io.resize_image(pixels[7:19, 7:19], (12, 12)), atol=1e-6)


def test_context_outside_of_the_image_is_the_mean(files: tuple[str, str]) -> None:
    settings = SETTINGS | {"channel_swap": (1, 2, 0)}
    detector = caffe.Detector(*files, context_pad=3, **settings)
    crop = detector.crop(np.ones((40, 40, 3), np.float32), np.array([0, 0, 5, 5]))
    assert (crop[4:, 4:] == 1).all()
    blob = detector.transformer.preprocess("data", crop)
    np.testing.assert_allclose(blob[:, :2, :], 0, atol=1e-4)
    np.testing.assert_allclose(blob[:, :, :2], 0, atol=1e-4)
    assert np.abs(blob[:, 5, 5]).min() > 50


def test_faults_are_told(files: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"context_pad must be less than half .* input, got 6"):
        caffe.Detector(*files, context_pad=6)
    detector = caffe.Detector(*files, context_pad=3)
    with pytest.raises(ConfigError, match=r"window must overlap the image \(20, 20\)"):
        detector.crop(np.ones((20, 20, 3)), (50, 50, 60, 60))
    with pytest.raises(BackendError, match="selective_search_ijcv_with_python must be there"):
        detector.detect_selective_search(["a.png"])
