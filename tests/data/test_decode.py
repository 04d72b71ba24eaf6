"""Images are decoded to OpenCV's pixels, whichever library decodes them."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dtrain.data import decode
from dtrain.data.decode import decode_image
from dtrain.data.jpeg_header import jpeg_header
from dtrain.errors import DataError
from tests.data.sources import images, jpeg_of
from tests.shared import shared_path

FLAGS = {"as stored": cv2.IMREAD_UNCHANGED, "colour": cv2.IMREAD_COLOR, "grey": cv2.IMREAD_GRAYSCALE}
SMALLER = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
UPRIGHT = 1  # the orientation of a camera that was not turned


def photos():
    return sorted(p for p in shared_path("data", "imagenet-sample").iterdir() if p.suffix.lower() == ".jpeg")


def with_orientation(jpeg, orientation):
    """The JPEG with a camera's notes of how it was held in front."""
    entry = struct.pack(">HHLHH", 0x0112, 3, 1, orientation, 0)
    notes = b"Exif\0\0MM\0*" + struct.pack(">LH", 8, 1) + entry + struct.pack(">L", 0)  # 38 bytes
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(notes) + 2) + notes + jpeg[2:]


def theirs(content, flag):
    image = cv2.imdecode(np.frombuffer(content, np.uint8), flag)
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)


@pytest.fixture
def by_opencv(monkeypatch):
    """The images that OpenCV was asked for."""
    asked = []
    slow = decode._decode_by_opencv
    monkeypatch.setattr(decode, "_decode_by_opencv", lambda *image: (asked.append(image[2]), slow(*image))[1])
    return asked


@pytest.mark.parametrize("colour", FLAGS)
def test_photos_have_the_pixels_of_opencv(colour, by_opencv):
    for path in photos():
        content = path.read_bytes()
        np.testing.assert_array_equal(
            decode_image(content, colour, path.name), theirs(content, FLAGS[colour])
        )
    share = len(by_opencv) / len(photos())
    assert share == 1 if colour == "grey" else share < 0.05


@pytest.mark.parametrize("shrink", SMALLER)
def test_shrunk_photos_have_the_pixels_of_opencv(shrink, by_opencv):
    for path in photos()[::5]:
        content = path.read_bytes()
        np.testing.assert_array_equal(
            decode_image(content, "colour", path.name, lambda *_: shrink), theirs(content, SMALLER[shrink])
        )
    assert len(by_opencv) < 10


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 16), (17, 33)])
@pytest.mark.parametrize("quality", [30, 100])
def test_small_images_of_odd_sizes_have_the_pixels_of_opencv(size, quality, by_opencv):
    content = jpeg_of(images(1, (3, *size))[0], quality)
    for shrink in (1, 2, 4, 8):
        found = decode_image(content, "colour", "small", lambda *_, by=shrink: by)
        np.testing.assert_array_equal(found, theirs(content, SMALLER.get(shrink, cv2.IMREAD_COLOR)))
    assert by_opencv == []


@pytest.mark.parametrize("colour", ["as stored", "colour"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_photo_of_a_turned_camera_is_turned_where_opencv_turns_it(orientation, colour, by_opencv):
    content = with_orientation(jpeg_of(images(1, (3, 6, 11))[0]), orientation)
    found = decode_image(content, colour, "photo")
    assert found.shape == ((3, 11, 6) if colour == "colour" and 5 <= orientation <= 8 else (3, 6, 11))
    np.testing.assert_array_equal(found, theirs(content, FLAGS[colour]))
    is_turned = orientation != UPRIGHT
    assert jpeg_header(np.frombuffer(content, np.uint8)) == (6, 11, 3, is_turned)
    assert by_opencv == (["photo"] if is_turned and colour == "colour" else [])


@given(damage=st.lists(st.tuples(st.integers(0, 37), st.integers(0, 255)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_cameras_notes_may_say_anything(damage):
    content = bytearray(with_orientation(jpeg_of(images(1, (3, 6, 11))[0]), 3))
    for place, value in damage:
        content[2 + place] = value
    try:
        found = decode_image(bytes(content), "colour", "photo")
    except DataError:
        assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) is None
        return
    np.testing.assert_array_equal(found, theirs(bytes(content), cv2.IMREAD_COLOR))


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("colour", FLAGS)
def test_jpegs_of_one_and_of_four_channels_have_the_pixels_of_opencv(channels, colour, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 10, 4)[: 2 + (channels > 1)], np.uint8)
    Image.fromarray(pixels, {1: "L", 4: "CMYK"}[channels]).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    assert jpeg_header(np.frombuffer(content, np.uint8)) == (9, 10, channels, False)
    np.testing.assert_array_equal(decode_image(content, colour, "a.jpg"), theirs(content, FLAGS[colour]))


def test_a_jpeg_with_an_error_inside_is_read_as_far_as_opencv_reads_it(by_opencv):
    content = bytearray(jpeg_of(images(1, (3, 64, 64))[0]))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    found = decode_image(bytes(content), "colour", "spoiled")
    np.testing.assert_array_equal(found, theirs(bytes(content), cv2.IMREAD_COLOR))
    assert by_opencv == ["spoiled"]


def test_a_jpeg_that_claims_to_be_huge_is_refused_by_name():
    content = bytearray(jpeg_of(images(1, (3, 8, 8))[0]))
    frame = bytes(content).index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with pytest.raises(DataError, match="huge: must be an image that OpenCV decodes"):
        decode_image(bytes(content), "colour", "huge")
