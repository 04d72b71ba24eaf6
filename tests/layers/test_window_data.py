"""WindowData warps windows of images as Caffe does and draws them by the job's sample numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from dtrain.data.window_crop import Crop, place, warp
from dtrain.data.window_file import Window
from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.layers.window_data import WindowData
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images, each of one colour, with two objects and two pieces of background in all."""
    for number, colour in enumerate(((10, 20, 30), (40, 50, 60))):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((HEIGHT, WIDTH, 3), colour, np.uint8))
    listed = tmp_path / "windows.txt"
    listed.write_text(
        f"""# 0
0.png
3 {HEIGHT} {WIDTH}
3
5 0.9 2 3 12 13
5 0.2 0 0 9 9
5 0.45 1 1 4 4
# 1
1.png
3 {HEIGHT} {WIDTH}
2
7 0.5 20 10 29 19
7 0 5 5 8 8
"""
    )
    return listed


def build(
    source: Path,
    rest: str = "",
    transform: str = "crop_size: 8",
    *,
    batch_size: int = 8,
    rank: int = 0,
    size: int = 1,
    bad_records: int = 0,
) -> Net:
    param = pb.NetParameter(name="net")
    text.parse(
        f"""layer {{ name: "windows" type: "WindowData" top: "data" top: "label"
        transform_param {{ {transform} }}
        window_data_param {{ source: "{source}" root_folder: "{source.parent}/" batch_size: {batch_size}
        bg_threshold: 0.4 {rest} }} }}""",
        param,
    )
    return Net(param, Scope(CpuBackend(), pb.TRAIN, rank=rank, size=size, bad_records=bad_records))


def test_a_batch_ends_in_its_share_of_objects(source: Path) -> None:
    net = build(source, "fg_fraction: 0.25", "crop_size: 8 mean_value: 10 scale: 0.5")
    seen = set()
    for _ in range(10):
        net.forward()
        labels = net.blob("label").data.plain().tolist()
        assert labels[:6] == [0] * 6
        assert set(labels[6:]) <= {5, 7}
        seen |= set(labels[6:])
        first = net.blob("data").data.plain()[:, :, 0, 0]
        for label, colour in zip(labels, first.tolist(), strict=True):
            if label:
                base = {5: 10, 7: 40}[label]
                assert colour == [(base + shade - 10) * 0.5 for shade in (0, 10, 20)]
    assert seen == {5, 7}


def test_ranks_draw_what_one_rank_would(source: Path) -> None:
    alone = build(source, batch_size=8)
    ranks = [build(source, batch_size=4, rank=r, size=2) for r in range(2)]
    for _ in range(3):
        alone.forward()
        for rank, net in enumerate(ranks):
            net.forward()
            for name in ("data", "label"):
                np.testing.assert_array_equal(
                    net.blob(name).data.plain(), alone.blob(name).data.plain()[rank::2]
                )


def test_windows_of_an_image_that_cannot_be_read_may_be_replaced(source: Path) -> None:
    whole = build(source, "fg_fraction: 0.5")
    labels = []
    for _ in range(4):
        whole.forward()
        labels += whole.blob("label").data.plain().tolist()
    assert 7 in labels
    (source.parent / "1.png").unlink()
    net = build(source, "fg_fraction: 0.5", bad_records=2)
    layer = net.layer("windows")
    assert isinstance(layer, WindowData)
    for n in range(4):
        net.forward()
        expected = [5 if label == 7 else label for label in labels[8 * n : 8 * n + 8]]
        assert net.blob("label").data.plain().tolist() == expected
        values = {*net.blob("data").data.plain()[:, 0].ravel().tolist()}
        assert values == {10}, "the other image has another colour"
    assert sorted(layer.bad_records.replaced) == [1, 3], "the second object, and the second background"
    assert "1.png: No such file" in layer.bad_records.replaced[1]
    one = build(source, "fg_fraction: 0.5", bad_records=1)
    with pytest.raises(DataError, match=r"1\.png: .*; bad records of a source must number at most 1 in the"):
        list(map(Net.forward, [one] * 4))


def test_context_shows_what_lies_around_and_is_empty_beyond_the_image() -> None:
    """A 10 x 10 window at the corner becomes 20 x 20 with 5 pixels of context: twice as large."""
    crop = place(Window("", 1, 0, 0, 9, 9), (HEIGHT, WIDTH), 20, 5, False)
    # From -5 to 15: 21 positions are warped to 20, of which 5 lie beyond the image on either low side.
    assert crop == Crop(0, 0, 15, 15, 15, 15, 5, 0, 5)
    image = np.full((3, HEIGHT, WIDTH), 9, np.uint8)
    part, row, column = warp(image, Window("", 1, 0, 0, 9, 9), 20, 5, False, False)
    assert (part.shape, row, column) == ((3, 15, 15), 5, 5)
    part, row, column = warp(image, Window("", 1, 0, 0, 9, 9), 20, 5, False, True)
    assert (part.shape, row, column) == ((3, 15, 15), 5, 0)


def test_square_mode_takes_the_square_around_the_window() -> None:
    assert place(Window("", 1, 10, 8, 19, 11), (HEIGHT, WIDTH), 11, 0, True) == Crop(
        10, 5, 20, 15, 11, 11, 0, 0, 0
    )


def test_warping_is_opencv_bilinear_and_mirrors() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, HEIGHT, WIDTH), np.uint8)
    part, row, column = warp(image, Window("", 1, 3, 4, 12, 9), 8, 0, False, True)
    expected = cv2.resize(np.ascontiguousarray(image[:, 4:10, 3:13].transpose(1, 2, 0)), (8, 8))[:, ::-1]
    assert (row, column) == (0, 0)
    np.testing.assert_array_equal(part, expected.transpose(2, 0, 1))


def test_wrong_window_files_are_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: must be a readable window file, got No such file"):
        build(tmp_path / "none.txt")
    good = source.read_text()
    source.write_text("")
    with pytest.raises(DataError, match="must hold at least one image"):
        build(source)
    source.write_text(good[:-3])
    with pytest.raises(DataError, match="must go on with y2, got the end of the file"):
        build(source)
    source.write_text(good.replace("5 0.9", "0 0.9"))
    with pytest.raises(DataError, match=r"an object's class must be at least 1, got 0 in .*0.png"):
        build(source)
    source.write_text(good.replace("0.45", "many"))
    with pytest.raises(DataError, match='overlap must be a number, got "many" as word 21'):
        build(source)
    source.write_text(good.replace("20 10 29 19", "20 10 30 19"))
    net = build(source, "fg_fraction: 1", batch_size=32)
    with pytest.raises(DataError, match=r"1.png: a window must lie inside the image \(20 x 30\), got x 20"):
        net.forward()


def test_wrong_parameters_are_named(source: Path) -> None:
    for rest, transform, message in (
        ("", "scale: 2", "crop_size must be at least 1, got 0"),
        ("context_pad: 4", "crop_size: 8", r"context_pad must be less than half of crop_size \(8\), got 4"),
        ('crop_mode: "round"', "crop_size: 8", 'crop_mode must be "warp" or "square", got round'),
        ("fg_fraction: 2", "crop_size: 8", r"fg_fraction must be in \[0, 1\], got 2.0"),
        ("fg_threshold: 3", "crop_size: 8", "source must be a file with windows of objects"),
        ("", "crop_size: 8 mean_value: 1 mean_value: 2", "mean_value must be given once or 3 times, got 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            build(source, rest, transform)


def test_a_missing_image_is_named(source: Path) -> None:
    (source.parent / "1.png").unlink()
    (source.parent / "0.png").unlink()
    with pytest.raises(DataError, match=r"windows.txt: must name readable images, got .*\.png: No such file"):
        build(source).forward()
