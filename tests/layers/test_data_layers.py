"""The data layers give Caffe's own batches, dealt to ranks, from any position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_pixels
from dtrain.errors import DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.layers.record_layer import RecordLayer
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.sources import images
from tests.shared import shared_path

NAMES = ("raw", "raw_crop_mean_file", "raw_mean_values", "gray", "encoded_crop", "image_data")
DECODED = ("encoded_crop", "image_data")  # JPEG decoders differ by a level or two


def build(spec: str, *, rank: int = 0, size: int = 1, phase: int = pb.TEST, test_iter: int = 0) -> Net:
    param = pb.NetParameter()
    text.parse(spec, param)
    param.layer[0].name = "data"
    return Net(param, Scope(CpuBackend(), phase, rank=rank, size=size, test_iter=test_iter))


def golden_net(name: str) -> str:
    folder = shared_path("golden", "data")
    with np.load(folder / "data.npz") as stored:
        spec = str(stored[f"{name}|net"])
    for part in ("raw_lmdb", "encoded_lmdb", "gray_lmdb", "list.txt", "mean.binaryproto"):
        spec = spec.replace(f'"{part}"', f'"{folder / part}"')
    return spec.replace("ROOT", str(shared_path("data", "imagenet-sample")))


@pytest.mark.parametrize("name", NAMES)
def test_batches_are_those_of_caffe(name: str) -> None:
    net = build(golden_net(name))
    with np.load(shared_path("golden", "data", "data.npz")) as stored:
        data, label = stored[f"{name}|data"], stored[f"{name}|label"]
    scale = net.layer("data").spec.transform_param.scale
    for i in range(len(data)):
        net.forward()
        np.testing.assert_allclose(
            net.blob("data").data.plain(), data[i], rtol=1e-6, atol=2 * scale if name in DECODED else 1e-4
        )
        np.testing.assert_array_equal(net.blob("label").data.plain(), label[i])


def test_ranks_share_one_stream_of_samples() -> None:
    alone = build(golden_net("raw"), phase=pb.TRAIN)
    ranks = [build(golden_net("raw"), rank=r, size=2, phase=pb.TRAIN) for r in range(2)]
    stream = []
    for _ in range(4):
        alone.forward()
        stream.append(alone.blob("data").data.plain().copy())
    whole = np.concatenate(stream)
    for rank, net in enumerate(ranks):
        for step in range(2):
            net.forward()
            mine = whole[step * 8 + rank : step * 8 + 8 : 2]
            np.testing.assert_array_equal(net.blob("data").data.plain(), mine)


def test_seek_goes_on_with_the_samples_that_are_left() -> None:
    first, second = build(golden_net("raw"), phase=pb.TRAIN), build(golden_net("raw"), phase=pb.TRAIN)
    for _ in range(3):
        first.forward()
    source = first.layer("data")
    other = second.layer("data")
    assert isinstance(source, RecordLayer)
    assert isinstance(other, RecordLayer)
    assert source.position() == 12
    other.seek(source.position())
    first.forward()
    second.forward()
    np.testing.assert_array_equal(second.blob("data").data.plain(), first.blob("data").data.plain())


def test_test_batches_are_dealt_whole_to_the_ranks() -> None:
    alone = build(golden_net("raw"), test_iter=3)
    ranks = [build(golden_net("raw"), rank=r, size=2, test_iter=3) for r in range(2)]
    for _ in range(2):  # two passes: the second goes on where the first stopped
        for batch in range(3):
            alone.forward()
            ranks[batch % 2].forward()
            np.testing.assert_array_equal(
                ranks[batch % 2].blob("label").data.plain(), alone.blob("label").data.plain()
            )


def test_a_batch_of_one_has_the_size_of_its_image(tmp_path: Path) -> None:
    pixels = [images(1, (3, 8 + n, 20 - n), seed=n)[0] for n in range(4)]
    write_lmdb(str(tmp_path / "db"), ((b"%08d" % n, encode_pixels(p, n)) for n, p in enumerate(pixels)))
    spec = f"""layer {{ name: "data" type: "Data" top: "data" top: "label"
      data_param {{ source: "{tmp_path}/db" backend: LMDB batch_size: BATCH threads: 2 }} }}
    layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool"
      pooling_param {{ pool: AVE global_pooling: true }} }}"""
    net = build(spec.replace("BATCH", "1"))
    for n in (0, 1, 2, 3, 0, 1):
        net.forward()
        np.testing.assert_array_equal(net.blob("data").data.plain()[0], pixels[n])
        assert net.blob("label").data.plain().tolist() == [n]
        mean = pixels[n].mean(axis=(1, 2), dtype=np.float64)
        np.testing.assert_allclose(net.blob("pool").data.plain().ravel(), mean, rtol=1e-5)
    net.layer("data").close()  # type: ignore[attr-defined]
    two = build(spec.replace("BATCH", "2"))
    with pytest.raises(DataError, match="all images of a source must give the same shape"):
        two.forward()
    two.layer("data").close()  # type: ignore[attr-defined]


def test_missing_source_is_named(tmp_path: Path) -> None:
    spec = f'layer {{ name: "data" type: "Data" top: "data" data_param {{ source: "{tmp_path}/none" \
batch_size: 2 backend: LMDB }} }}'
    with pytest.raises(DataError, match="none"):
        build(spec)
