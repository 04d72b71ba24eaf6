"""Crop, mirror, mean and scale: Caffe's rules, the reference's values, and randomness tied to the sample."""

import numpy as np
import pytest

from dtrain.data.datum import encode_pixels
from dtrain.data.datum_scan import located
from dtrain.data.mean_file import read_mean, write_mean
from dtrain.data.record import Record
from dtrain.data.transform_kernels import interleaved, planar
from dtrain.data.transform_reference import transform_pixels
from dtrain.data.transform_settings import TransformSettings
from dtrain.data.transformer import Transformer
from dtrain.errors import ConfigError, DataError
from dtrain.proto import dtrain_pb2 as pb
from tests.data.sources import images

NO_MEAN = np.empty((0, 0, 0), np.float32)


def transformer(**options):
    return Transformer(
        TransformSettings(**{"train": False, **options}), 'net.prototxt:3: layer "data" (Data)'
    )


def applied(transform, pixels, sample=0):
    record = Record("source: record 0", (0.0,), pixels)
    out = np.full(transform.output_shape(record), np.nan, np.float32)
    transform.apply(record, sample, out)
    return out


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("mean", ["image", "values"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("kernel", [planar, interleaved])
def test_a_kernel_gives_the_bits_of_the_reference(kernel, dtype, mean, mirror):
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (3, 23, 37)).astype(dtype)
    mean_image = rng.random((3, 23, 37), np.float32) * 255 if mean == "image" else NO_MEAN
    means = np.array([104, 117, 123.5], np.float32)
    place, scale = (2, 5, mirror), 0.017
    expected, out = (np.full((3, 19, 31), np.nan, np.float32) for _ in range(2))
    transform_pixels(pixels, *place, mean_image, means, scale, expected)
    src = np.ascontiguousarray(pixels.transpose(1, 2, 0)) if kernel is interleaved else pixels
    kernel(src, *place, mean_image, means, scale, out)
    np.testing.assert_array_equal(out, expected)


def test_the_test_phase_crops_the_middle_rounding_up_and_left():
    pixels = images(1, (3, 8, 9))[0]
    np.testing.assert_array_equal(applied(transformer(crop_h=5, crop_w=4), pixels), pixels[:, 1:6, 2:6])


def test_the_train_phase_crops_at_every_place_and_nowhere_else():
    # Each pixel of the image is its own address, so the first one tells the place.
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 6, 8)
    transform = transformer(train=True, crop_h=4, crop_w=5)
    places = np.zeros((6, 8), np.int64)
    for sample in range(2400):
        out = applied(transform, pixels, sample)
        top, left = divmod(int(out[0, 0, 0]), 8)
        np.testing.assert_array_equal(out, pixels[:, top : top + 4, left : left + 5])
        places[top, left] += 1
    assert (places[:3, :4] > 120).all()
    assert places[:3, :4].sum() == 2400


@pytest.mark.parametrize("train", [False, True])
def test_mirror_turns_half_of_the_images_in_both_phases(train):
    pixels = images(1, (3, 4, 5))[0]
    transform = transformer(train=train, mirror=True)
    turned = 0
    for sample in range(1000):
        out = applied(transform, pixels, sample)
        mirrored = np.array_equal(out, pixels[:, :, ::-1])
        assert mirrored or np.array_equal(out, pixels)
        turned += mirrored
    assert 440 < turned < 560


def test_mirror_and_crop_are_independent():
    pixels = np.arange(25, dtype=np.uint8).reshape(1, 5, 5)
    transform = transformer(train=True, mirror=True, crop_h=4, crop_w=4)
    seen = {applied(transform, pixels, sample).tobytes() for sample in range(200)}
    assert len(seen) == 8


def test_a_sample_looks_the_same_alone_and_in_any_batch():
    pixels = images(12, (3, 9, 9))
    transform = transformer(train=True, mirror=True, crop_h=6, crop_w=6, seed=9)
    samples = np.arange(100, 112)
    alone = np.stack([applied(transform, image, n) for image, n in zip(pixels, samples, strict=True)])
    messages = [memoryview(encode_pixels(image, n)) for n, image in enumerate(pixels)]
    out, labels = np.full((12, 3, 6, 6), np.nan, np.float32), np.full(12, np.nan, np.float32)
    transform.apply_datums(located(messages), str, samples, out, labels)
    np.testing.assert_array_equal(out, alone)
    np.testing.assert_array_equal(labels, np.arange(12))
    order = np.random.default_rng(0).permutation(12)
    transform.apply_datums(located([messages[i] for i in order]), str, samples[order], out, labels)
    np.testing.assert_array_equal(out, alone[order])


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("crop", [0, 6])
@pytest.mark.parametrize("mean", ["none", "image", "value", "values"])
def test_a_batch_has_the_bits_that_its_records_get_one_by_one(train, mirror, crop, mean):
    pixels = images(30, (3, 9, 11), seed=3)
    means = {
        "none": {},
        "image": {"mean_image": np.random.default_rng(1).random((3, 9, 11), np.float32) * 255},
        "value": {"mean_values": (120.5,)},
        "values": {"mean_values": (104.0, 117.0, 123.5)},
    }[mean]
    transform = transformer(
        train=train, mirror=mirror, crop_h=crop, crop_w=crop, scale=0.017, seed=7, **means
    )
    samples = np.arange(2**40, 2**40 + 30)
    alone = np.stack([applied(transform, image, int(n)) for image, n in zip(pixels, samples, strict=True)])
    messages = [memoryview(encode_pixels(image, n)) for n, image in enumerate(pixels)]
    out, labels = np.full(alone.shape, np.nan, np.float32), np.full(30, np.nan, np.float32)
    transform.apply_datums(located(messages), str, samples, out, labels)
    np.testing.assert_array_equal(out, alone)
    np.testing.assert_array_equal(labels, np.arange(30))


def test_raw_images_of_several_sizes_are_cropped_each_by_its_own_size():
    pixels = [images(1, (1, 6 + n, 9 - n), seed=n)[0] for n in range(4)]
    transform = transformer(train=True, crop_h=5, crop_w=5)
    messages = [memoryview(encode_pixels(image, n)) for n, image in enumerate(pixels)]
    out = np.full((4, 1, 5, 5), np.nan, np.float32)
    transform.apply_datums(located(messages), str, np.arange(4), out, np.zeros(4, np.float32))
    for n, image in enumerate(pixels):
        np.testing.assert_array_equal(out[n], applied(transform, image, n))


def test_another_seed_draws_other_crops():
    pixels = images(1, (1, 40, 40))[0]
    one, two = (transformer(train=True, crop_h=8, crop_w=8, seed=seed) for seed in (1, 2))
    same = sum(np.array_equal(applied(one, pixels, n), applied(two, pixels, n)) for n in range(50))
    assert same <= 2


def test_messages_of_several_kinds_and_sizes_mix_in_a_batch():
    import cv2

    small, large = images(1, (3, 7, 9))[0], images(1, (3, 12, 11))[0]
    png = cv2.imencode(".png", large.transpose(1, 2, 0))[1].tobytes()
    messages = [
        encode_pixels(small, 1),
        encode_pixels(large.astype(np.float32), 2),
        pb.Datum(data=png, encoded=True, label=3).SerializeToString(),
    ]
    out, labels = np.full((3, 3, 5, 5), np.nan, np.float32), np.zeros(3, np.float32)
    transform = transformer(crop_h=5, crop_w=5)
    transform.apply_datums(located(list(map(memoryview, messages))), str, np.arange(3), out, labels)
    np.testing.assert_array_equal(out[0], small[:, 1:6, 2:7])
    np.testing.assert_array_equal(out[1], large[:, 3:8, 3:8])
    np.testing.assert_array_equal(out[2], large[:, 3:8, 3:8])
    assert labels.tolist() == [1, 2, 3]


def test_the_mean_image_is_cut_where_the_image_is():
    pixels = images(1, (3, 8, 9))[0]
    transform = transformer(mean_image=pixels.astype(np.float32), train=True, crop_h=3, crop_w=3)
    for sample in range(20):
        assert not applied(transform, pixels, sample).any()


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            {"crop_h": 9, "crop_w": 9},
            r"crop must be at most .* got 9 x 9 for 8 x 9 in source: record 0; lower",
        ),
        (
            {"mean_image": np.zeros((3, 8, 8), np.float32)},
            "mean_file must have .* got 3 x 8 x 8 for 3 x 8 x 9",
        ),
        ({"mean_values": (1.0, 2.0)}, "mean_value must be given once or once a channel, got 2 values for 3"),
    ],
)
def test_settings_that_do_not_fit_the_image_name_layer_rule_and_record(options, rule):
    with pytest.raises(DataError, match=rf'net.prototxt:3: layer "data" \(Data\): {rule}'):
        applied(transformer(**options), images(1, (3, 8, 9))[0])


def test_images_of_two_sizes_without_crop_are_refused():
    messages = [memoryview(encode_pixels(images(1, shape)[0], 0)) for shape in ((1, 4, 4), (1, 4, 5))]
    with pytest.raises(DataError, match="got 1 x 4 x 5 after 1 x 4 x 4 in the 1st; set crop_size"):
        transformer().apply_datums(
            located(messages),
            "the {}st".format,
            np.arange(2),
            np.zeros((2, 1, 4, 4), np.float32),
            np.zeros(2, np.float32),
        )


def settings_of(**fields):
    return TransformSettings.from_param(
        pb.TransformationParameter(**fields), train=True, seed=5, where='layer "data"'
    )


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"force_color": True, "force_gray": True}, "force_color and force_gray"),
        ({"mean_file": "m", "mean_value": [1]}, "mean_file and mean_value"),
        ({"crop_h": 3}, "crop_h and crop_w must be given together, got 3 and 0"),
        ({"crop_size": 3, "crop_h": 3, "crop_w": 3}, "crop_size and crop_h"),
        ({"img_rand_resize_lower": 3}, "img_rand_resize must have 0 < lower <= upper, got 3 and 0"),
        ({"bgr2rgb": True}, "transform_param.bgr2rgb must be absent, got True"),
        ({"noise_param": {}}, "transform_param.noise_param must be absent"),
    ],
)
def test_contradictions_and_unknown_transforms_are_refused_at_set_up(fields, rule):
    with pytest.raises(ConfigError, match=rule):
        settings_of(**fields)


def test_fork_settings_that_change_nothing_are_accepted():
    settings = settings_of(
        use_gpu_transform=True, random_seed=17, crop_h=4, crop_w=6, img_rand_resize_lower=0
    )
    assert (settings.seed, settings.crop_h, settings.crop_w) == (17, 4, 6)
    assert settings_of().seed == 5


def test_a_mean_file_is_read_as_written(tmp_path):
    mean = np.random.default_rng(0).random((3, 5, 6), np.float32)
    path = str(tmp_path / "mean.binaryproto")
    write_mean(path, mean)
    np.testing.assert_array_equal(read_mean(path), mean)
    assert [p.name for p in tmp_path.iterdir()] == ["mean.binaryproto"]
    with pytest.raises(DataError, match="mean_file must be readable, got No such file"):
        read_mean(path + "x")
    (tmp_path / "bad").write_bytes(b"\xff\xff\xff")
    with pytest.raises(DataError, match="mean_file must be a BlobProto"):
        read_mean(str(tmp_path / "bad"))
