"""AnnotatedData serves the boxes of a batch as MultiBoxLoss takes them, dealt to ranks, from any position."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.annotated_data import AnnotatedData
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.annotated_records import Object, annotated, annotated_lmdb

NUM = 7
LABEL_MAP = 'item { name: "none" label: 0 } item { name: "a" label: 1 } item { name: "b" label: 2 }'
SSD = """
mirror: true
mean_value: 104 mean_value: 117 mean_value: 123
resize_param { height: 16 width: 16 interp_mode: LINEAR interp_mode: AREA interp_mode: NEAREST }
distort_param { brightness_prob: 0.5 brightness_delta: 32 hue_prob: 0.5 hue_delta: 18
  saturation_prob: 0.5 saturation_lower: 0.5 saturation_upper: 1.5 }
expand_param { prob: 0.5 max_expand_ratio: 4 }
emit_constraint { emit_type: CENTER }
"""
SAMPLERS = """
batch_sampler { max_sample: 1 max_trials: 1 sampler { } }
batch_sampler { max_sample: 1 max_trials: 50
  sampler { min_scale: 0.3 max_scale: 1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 }
  sample_constraint { min_jaccard_overlap: 0.3 } }
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Seven random images of several sizes; record n has n mod 3 objects."""
    rng = np.random.default_rng(0)
    messages = []
    for n in range(NUM):
        pixels = rng.integers(0, 256, (3, 20 + n, 30 - n), dtype=np.uint8)
        objects = [(1 + i, (0.1 * (i + 1), 0.2, 0.5 + 0.1 * n * 0.5, 0.9)) for i in range(n % 3)]
        messages.append(annotated(pixels, objects, encoded=n % 2 == 0))
    return annotated_lmdb(tmp_path / "annotated", messages)


def text_of(
    source: str,
    transform: str = SSD,
    annotation: str = SAMPLERS,
    data: str = "",
    *,
    batch_size: int = 3,
    backend: str = "LMDB",
    rest: str = "",
) -> str:
    return f"""layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label"
    transform_param {{ {transform} }}
    data_param {{ source: "{source}" backend: {backend} batch_size: {batch_size} {data} }}
    annotated_data_param {{ {annotation} }} }} {rest}"""


def build(
    source: str,
    transform: str = SSD,
    annotation: str = SAMPLERS,
    data: str = "",
    *,
    batch_size: int = 3,
    backend: str = "LMDB",
    rest: str = "",
    rank: int = 0,
    size: int = 1,
    phase: int = pb.TRAIN,
    test_iter: int = 0,
    bad_records: int = 0,
    seed: int = 0,
) -> Net:
    param = pb.NetParameter(name="net")
    spec = text_of(source, transform, annotation, data, batch_size=batch_size, backend=backend, rest=rest)
    lines = text.parse(spec, param, "net.prototxt")
    rng = np.random.default_rng(seed)
    scope = Scope(
        CpuBackend(), phase, rank, size, seed, test_iter=test_iter, bad_records=bad_records, rng=rng
    )
    return Net(param, scope, source=lines)


def layer_of(net: Net) -> AnnotatedData:
    layer = net.layer("data")
    assert isinstance(layer, AnnotatedData)
    return layer


def batch_of(net: Net) -> tuple[np.ndarray, np.ndarray]:
    net.forward()
    return net.blob("data").data.plain().copy(), net.blob("label").data.plain().copy()


def items(batch: tuple[np.ndarray, np.ndarray]) -> list[tuple[bytes, list[list[float]]]]:
    """Image and objects of every sample."""
    data, rows = batch
    table = rows[0, 0]
    return [(image.tobytes(), table[table[:, 0] == n, 1:].tolist()) for n, image in enumerate(data)]


def test_rows_are_the_boxes_of_all_images_of_the_batch(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    messages = [
        annotated(pixels[0], [(2, (0.125, 0.25, 0.5, 1)), (1, (0, 0, 1, 1)), (2, (0.5, 0.5, 0.75, 0.75))]),
        annotated(pixels[1], [(1, (0.25, 0, 0.5, 0.5))], encoded=False),
    ]
    messages[0].annotation_group[1].annotation[0].bbox.difficult = True
    net = build(annotated_lmdb(tmp_path / "db", messages), "", "", batch_size=2, phase=pb.TEST)
    data, rows = batch_of(net)
    np.testing.assert_array_equal(data, pixels)
    assert rows.tolist() == [
        [
            [
                [0, 2, 0, 0.125, 0.25, 0.5, 1, 0],
                [0, 2, 1, 0.5, 0.5, 0.75, 0.75, 0],
                [0, 1, 0, 0, 0, 1, 1, 1],
                [1, 1, 0, 0.25, 0, 0.5, 0.5, 0],
            ]
        ]
    ]


def test_a_batch_without_boxes_has_one_row_of_minus_one(tmp_path: Path) -> None:
    empty = annotated(np.zeros((3, 4, 4), np.uint8))
    one = annotated(np.zeros((3, 4, 4), np.uint8), [(1, (0, 0, 1, 1))])
    net = build(annotated_lmdb(tmp_path / "db", [empty, empty, one]), "", "", batch_size=1)
    shapes = []
    for _ in range(3):
        _, rows = batch_of(net)
        shapes.append(rows.shape)
        assert (rows == -1).all() == (len(shapes) < 3)
    assert shapes == [(1, 1, 1, 8)] * 3


def test_the_number_of_rows_changes_from_batch_to_batch(source: str) -> None:
    net = build(source, "resize_param { height: 8 width: 9 }", "", phase=pb.TEST, batch_size=2)
    assert net.blob("data").shape == (2, 3, 8, 9)
    numbers = [batch_of(net)[1].shape[2] for _ in range(4)]
    assert numbers == [1, 2, 3, 1]  # 0 + 1, 2 + 0, 1 + 2, 0 + 0: a row of -1


def test_labels_need_not_be_served(source: str) -> None:
    param = pb.NetParameter(name="net")
    text.parse(
        f'layer {{ name: "data" type: "AnnotatedData" top: "data" transform_param {{ {SSD} }} '
        f'data_param {{ source: "{source}" backend: LMDB batch_size: 2 }} }}',
        param,
    )
    net = Net(param, Scope(CpuBackend(), pb.TRAIN))
    net.forward()
    assert net.blob("data").shape == (2, 3, 16, 16)


@pytest.mark.parametrize("shuffle", ["", "shuffle: true rand_skip: 5"])
def test_ranks_share_one_stream_of_samples(source: str, shuffle: str) -> None:
    alone = build(source, data=shuffle, batch_size=2, seed=3)
    stream = [item for _ in range(6) for item in items(batch_of(alone))]
    assert len({image for image, _ in stream}) == len(stream)  # every sample is drawn anew
    ranks = [build(source, data=shuffle, batch_size=2, rank=r, size=2, seed=3) for r in range(2)]
    for rank, net in enumerate(ranks):
        mine = [item for _ in range(3) for item in items(batch_of(net))]
        assert mine == stream[rank::2]


def test_threads_change_nothing(source: str) -> None:
    one, many = build(source), build(source, data="threads: 3 prefetch: 2")
    for _ in range(5):
        assert items(batch_of(many)) == items(batch_of(one))


def test_seek_goes_on_with_the_samples_that_are_left(source: str) -> None:
    first, second = build(source), build(source)
    for _ in range(3):
        first.forward()
    assert layer_of(first).position() == 9
    layer_of(second).seek(9)
    assert items(batch_of(second)) == items(batch_of(first))
    layer_of(first).seek(0)
    layer_of(second).seek(0)
    assert items(batch_of(second)) == items(batch_of(first))
    assert layer_of(first).position() == 3


def test_test_batches_are_dealt_whole_to_the_ranks(source: str) -> None:
    alone = build(source, phase=pb.TEST, test_iter=3)
    ranks = [build(source, phase=pb.TEST, rank=r, size=2, test_iter=3) for r in range(2)]
    for _ in range(2):  # two passes: the second goes on where the first stopped
        for batch in range(3):
            assert items(batch_of(ranks[batch % 2])) == items(batch_of(alone))


def test_images_keep_their_form_one_at_a_time(source: str) -> None:
    net = build(source, "resize_param { resize_mode: FIT_SMALL_SIZE height: 10 width: 10 }", "", batch_size=1)
    shapes = [batch_of(net)[0].shape for _ in range(NUM)]
    assert shapes[0] == (1, 3, 10, 15)
    assert shapes[-1] == (1, 3, 10, 10) or shapes[-1][2] > 10
    assert len(set(shapes)) > 3


def test_close_ends_the_threads(source: str) -> None:
    before = set(threading.enumerate())
    net = build(source, data="threads: 3")
    net.forward()
    started = set(threading.enumerate()) - before
    assert len(started) == 3
    layer_of(net).close()
    assert not any(thread.is_alive() for thread in started)


# --- faults


def fault(
    source: str,
    transform: str = SSD,
    annotation: str = "",
    data: str = "",
    *,
    batch_size: int = 3,
    backend: str = "LMDB",
) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        build(source, transform, annotation, data, batch_size=batch_size, backend=backend).forward()
    return str(caught.value)


def test_wrong_settings_name_file_line_and_layer(source: str) -> None:
    told = fault("")
    assert (
        told
        == 'net.prototxt:11: layer "data" (AnnotatedData): source must be the path of a database, got none'
    )
    for expected, message in (
        ("batch_size must be at least 1, got 0", fault(source, batch_size=0)),
        ("shuffle_block must be absent without shuffle: true, got 2", fault(source, data="shuffle_block: 2")),
        ("backend must be LMDB or LEVELDB, got ARROW", fault(source, backend="ARROW")),
        (
            "label_map_file: none.txt: must be a readable",
            fault(source, annotation='label_map_file: "none.txt"'),
        ),
        (
            "batch_size must be 1 for resize_mode FIT_SMALL_SIZE",
            fault(source, "resize_param { resize_mode: FIT_SMALL_SIZE height: 10 width: 10 }"),
        ),
        ("resize_param must have height and width above 0", fault(source, "resize_param { height: 3 }")),
        (f"{source}0: must be an LMDB, got no such path", fault(f"{source}0")),
    ):
        where, found = message.split(' layer "data" (AnnotatedData): ', 1)
        assert where.startswith("net.prototxt:")
        assert found.startswith(expected)
    told = fault(source, annotation="batch_sampler { }\nbatch_sampler { sampler { min_scale: 0 } }")
    lines = text_of(source, annotation="batch_sampler { }\nbatch_sampler { sampler").splitlines()
    line = next(n for n, text in enumerate(lines, 1) if text.startswith("batch_sampler { sampler"))
    assert told == (
        f'net.prototxt:{line}: layer "data" (AnnotatedData): sampler must have 0 < min_scale <= max_scale '
        "<= 1, got 0 and 1"
    )


def test_a_source_of_other_records_is_told(tmp_path: Path, source: str) -> None:
    plain = pb.Datum(channels=1, height=1, width=1, data=b"\0").SerializeToString()
    write_lmdb(str(tmp_path / "plain"), [(b"00000000", plain)])
    told = fault(str(tmp_path / "plain"))
    assert f"{tmp_path}/plain: record 0 (key 00000000): must be an AnnotatedDatum with a datum" in told
    untyped = annotated_lmdb(tmp_path / "db", [annotated(np.zeros((3, 4, 4), np.uint8), has_type=False)])
    assert "record 0 (key 00000000_0.png): type must be BBOX, got none" in fault(untyped)
    build(untyped, annotation="anno_type: BBOX").forward()


def test_a_label_beyond_the_map_names_its_record(tmp_path: Path) -> None:
    (tmp_path / "map.prototxt").write_text(LABEL_MAP)
    good, bad = (annotated(np.zeros((3, 4, 4), np.uint8), [(label, (0, 0, 1, 1))]) for label in (2, 3))
    source = annotated_lmdb(tmp_path / "db", [good, bad])
    told = fault(source, annotation=f'label_map_file: "{tmp_path}/map.prototxt"')
    assert "record 1 (key 00000001_1.png): group_label must be in label_map_file (0, 1, 2), got 3" in told


def broken(tmp_path: Path) -> str:
    """Three records, of which the second is cut short."""
    messages = [annotated(np.full((3, 4, 4), n, np.uint8), [(1, (0, 0, 1, 1))]) for n in range(3)]
    messages[1].datum.data = messages[1].datum.data[:10]
    return annotated_lmdb(tmp_path / "broken", messages)


def test_a_bad_record_is_named(tmp_path: Path) -> None:
    assert "record 1 (key 00000001_1.png): must be an image that OpenCV decodes" in fault(
        broken(tmp_path), ""
    )


def test_bad_records_may_be_replaced(tmp_path: Path) -> None:
    net = build(broken(tmp_path), "", "", bad_records=1)
    data, _ = batch_of(net)
    assert data[:, 0, 0, 0].tolist() == [0, 2, 2]
    assert "record 2" in layer_of(net).name_of(1)


def test_images_of_one_batch_must_get_one_shape(source: str) -> None:
    told = fault(source, "")
    assert "record 1 (key 00000001_1.png): all images of a batch must get the same shape" in told


# --- training

DETECTOR = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "conv2" type: "Convolution" bottom: "conv" top: "conv2"
  convolution_param { num_output: 16 kernel_size: 3 stride: 2 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu2" type: "ReLU" bottom: "conv2" top: "conv2" }
layer { name: "priors" type: "PriorBox" bottom: "conv2" bottom: "data" top: "priors"
  prior_box_param { min_size: 12 aspect_ratio: 2 flip: true variance: [0.1, 0.1, 0.2, 0.2] } }
layer { name: "loc" type: "Convolution" bottom: "conv2" top: "loc"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
  permute_param { order: [0, 2, 3, 1] } }
layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
layer { name: "conf" type: "Convolution" bottom: "conv2" top: "conf"
  convolution_param { num_output: 9 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
  permute_param { order: [0, 2, 3, 1] } }
layer { name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }
layer { name: "loss" type: "MultiBoxLoss" bottom: "loc_flat" bottom: "conf_flat" bottom: "priors"
  bottom: "label" top: "loss" propagate_down: [true, true, false, false]
  multibox_loss_param { num_classes: 3 code_type: CENTER_SIZE overlap_threshold: 0.5 } }
"""


def shapes_database(path: Path, *, of_another_image: bool = False) -> str:
    """Grey images with a bright (class 1) or dark (class 2) rectangle; its box, or that of the last image."""
    rng = np.random.default_rng(4)
    messages = []
    last: Object = (1, (0.3, 0.3, 0.7, 0.7))
    for n in range(24):
        label = 1 + n % 2
        left, top = rng.integers(0, 16, 2)
        width, height = rng.integers(10, 16, 2)
        pixels = rng.integers(100, 130, (3, 32, 32), dtype=np.uint8)
        pixels[:, top : top + height, left : left + width] = 250 if label == 1 else 5
        own: Object = (label, (left / 32, top / 32, (left + width) / 32, (top + height) / 32))
        messages.append(annotated(pixels, [last if of_another_image else own]))
        last = own
    return annotated_lmdb(path, messages)


def losses(net: Net, steps: int, lr: float) -> list[float]:
    """Of plain gradient descent."""
    found = []
    for _ in range(steps):
        net.clear_param_diffs()
        found.append(net.forward())
        net.backward()
        for param in net.params.owned:
            param.blob.data.plain_mutable()[...] -= lr * param.blob.diff.plain()
    return found


def test_a_small_detector_learns_from_it(tmp_path: Path) -> None:
    transform = """scale: 0.01 mean_value: 115 mirror: true resize_param { height: 32 width: 32 }
        expand_param { prob: 0.3 max_expand_ratio: 1.5 } emit_constraint { emit_type: CENTER }"""
    last = []
    for of_another_image in (False, True):
        source = shapes_database(tmp_path / f"shapes{of_another_image}", of_another_image=of_another_image)
        net = build(source, transform, SAMPLERS, batch_size=8, rest=DETECTOR, seed=1)
        found = losses(net, 100, 0.05)
        assert np.isfinite(found).all()
        last.append(np.mean(found[-30:]) / np.mean(found[:10]))
    assert last[0] < 0.7
    assert last[0] < 0.9 * last[1]  # boxes that are of other images teach less
