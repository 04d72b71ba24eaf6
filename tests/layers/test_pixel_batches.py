"""On a device that takes pixels a Data layer gives the batches of the host, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest

from dtrain.data.convert.lmdb_writer import write_lmdb
from dtrain.data.datum import encode_image, encode_pixels
from dtrain.data.pixel_rows import HEAD, Layout
from dtrain.errors import DataError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cpu.pixels import HEAD_BYTES
from dtrain.kernels.cuda.array import own
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.kernels.cuda.form import Form, ValueType, to_floats
from dtrain.layers.layer import Scope
from dtrain.layers.record_layer import RecordLayer
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.blobproto import fill_blobproto
from dtrain.proto.files import write_binary
from tests.data.sources import images, jpeg_of
from tests.data.test_arrow import table_of, write
from tests.kernels.cuda.cpu_device import CpuDevice, from_floats
from tests.kernels.cuda.numpy_cupy import Cupy
from tests.layers.test_data_layers import NAMES, golden_net

NUM, SHAPE = 22, (3, 20, 26)

SOURCES: Final = ("raw", "grey", "jpeg", "mixed")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LMDBs of SOURCES, a list of files, and mean files."""
    path = tmp_path_factory.mktemp("pixels")
    pixels = images(NUM, SHAPE)
    smooth = [cv2.GaussianBlur(p.transpose(1, 2, 0), (5, 5), 2).transpose(2, 0, 1) for p in pixels]
    raw = [encode_pixels(p, n) for n, p in enumerate(pixels)]
    jpeg = [encode_image(jpeg_of(p), n) for n, p in enumerate(smooth)]
    grey = [encode_pixels(p[:1], n) for n, p in enumerate(pixels)]
    mixed = [raw[n] if n % 3 == 1 else jpeg[n] for n in range(NUM)]
    for name, values in zip(SOURCES, (raw, grey, jpeg, mixed), strict=True):
        write_lmdb(str(path / name), [(b"%08d" % n, value) for n, value in enumerate(values)])
    with (path / "list.txt").open("w") as file:
        for n, p in enumerate(smooth):
            (path / f"{n}.jpg").write_bytes(jpeg_of(p))
            file.write(f"{n}.jpg {n}\n")
    for name, channels in (("mean", 3), ("grey_mean", 1)):
        proto = pb.BlobProto()
        fill_blobproto(proto, np.random.default_rng(1).random((1, channels, *SHAPE[1:]), np.float32) * 255)
        write_binary(str(path / f"{name}.binaryproto"), proto)
    return path


def data(
    folder: Path, source: str, transform: str, fields: str = "", *, batch: int = 5, threads: int = 2
) -> str:
    transform = transform.replace("MEAN", str(folder / "mean.binaryproto"))
    return f"""layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ {transform} }}
      data_param {{ source: "{folder / source}" backend: LMDB {fields}
      batch_size: {batch} threads: {threads} }} }}"""


def build(spec: str, backend: Backend, phase: int = pb.TRAIN, bad_records: int = 0) -> Net:
    param = pb.NetParameter()
    text.parse(spec, param)
    return Net(param, Scope(backend, phase, seed=7, bad_records=bad_records))


def source_of(net: Net) -> RecordLayer:
    layer = net.layer(net.layers[0].name)
    assert isinstance(layer, RecordLayer)
    return layer


def close(*nets: Net) -> None:
    for net in nets:
        source_of(net).close()


def batches(net: Net, num: int) -> Iterator[list[np.ndarray]]:  # type: ignore[type-arg]
    for _ in range(num):
        net.forward()
        yield [blob.data.plain().copy() for blob in net.blobs.values()]


def check_equal(spec: str, *, phase: int = pb.TRAIN, pixels: bool = True, num: int = 6) -> Layout | None:
    """Batches on a device are those of the CPU, and again from where a seek goes."""
    device = build(spec, CudaBackend(CpuDevice()), phase)
    host = build(spec, CpuBackend(), phase)
    for start in (None, 15, 3):
        if start is not None:
            source_of(device).seek(start)
            source_of(host).seek(start)
        for mine, theirs in zip(batches(device, num), batches(host, num), strict=True):
            for one, other in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(one, other)
        assert source_of(device).position() == source_of(host).position()
    layout = source_of(device).layout
    assert (layout is not None) == pixels
    assert source_of(host).layout is None
    close(device, host)
    return layout


TRANSFORMS: Final = {
    "whole images": "",
    "scale": "scale: 0.017",
    "crop, mirror, mean values": "crop_size: 13 mirror: true mean_value: 104 mean_value: 117 mean_value: 124",
    "crop, mirror, mean image": 'crop_h: 11 crop_w: 17 mirror: true mean_file: "MEAN" scale: 0.02',
    "mirror and one mean value": "mirror: true mean_value: 100.5",
    "warped, then cut": "resize_param { height: 24 width: 30 } crop_size: 16 mirror: true",
    "colours": "crop_size: 9 "
    "distort_param { brightness_prob: 0.5 brightness_delta: 30 random_order_prob: 1 }",
    "resized by areas": "crop_size: 12 mirror: true "
    "random_resize_param { min_size: 16 max_size: 20 resize_param { interp_mode: AREA } }",
}


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST], ids=["TRAIN", "TEST"])
@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("source", ["raw", "jpeg", "mixed"])
def test_batches_on_a_device_are_those_of_the_host(
    folder: Path, source: str, transform: str, phase: int
) -> None:
    layout = check_equal(data(folder, source, TRANSFORMS[transform], "shuffle: true"), phase=phase)
    assert layout is not None
    assert layout.is_interleaved or source == "raw", "JPEGs stay as they are decoded"


@pytest.mark.parametrize(
    "transform", ["", "crop_size: 9 mirror: true mean_value: 3", 'mean_file: "grey_MEAN" mirror: true']
)
def test_grey_batches_are_those_of_the_host(folder: Path, transform: str) -> None:
    grey = transform.replace("grey_MEAN", str(folder / "grey_mean.binaryproto"))
    check_equal(data(folder, "grey", grey))
    if not transform.count("grey_MEAN"):
        check_equal(data(folder, "jpeg", f"{transform} force_gray: true"))


@pytest.mark.parametrize("size", ["", "new_height: 17 new_width: 15"])
def test_image_files_come_as_from_the_host(folder: Path, size: str) -> None:
    spec = f"""layer {{ name: "data" type: "ImageData" top: "data" top: "label"
      transform_param {{ crop_size: 13 mirror: true mean_value: 9 mean_value: 8 mean_value: 7 }}
      image_data_param {{ source: "{folder}/list.txt" root_folder: "{folder}/" shuffle: true {size}
      batch_size: 4 }} }}"""
    layout = check_equal(spec)
    assert layout is not None
    assert layout.is_interleaved


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST], ids=["TRAIN", "TEST"])
@pytest.mark.parametrize("name", NAMES)
def test_batches_of_the_goldens_are_those_of_the_host(name: str, phase: int) -> None:
    spec = golden_net(name)
    check_equal(spec, phase=phase, num=2)


@pytest.mark.parametrize("threads", [1, 3])
def test_small_batches_taken_several_at_once_are_those_of_the_host(folder: Path, threads: int) -> None:
    check_equal(data(folder, "raw", "crop_size: 8", "prefetch: 40", threads=threads), num=20)


@pytest.mark.parametrize("kind", ["tensor", "encoded"])
def test_columns_of_an_arrow_file_come_as_from_the_host(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "images.arrow", table_of(kind, images(22)))
    for transform in ("", "crop_h: 5 crop_w: 7 mirror: true mean_value: 3", TRANSFORMS["colours"]):
        small = transform.replace("crop_size: 9", "crop_size: 6")
        layout = check_equal(data(tmp_path, "images.arrow", small).replace("LMDB", "ARROW"))
        assert layout is not None
        assert layout.is_interleaved == (kind == "encoded" or small.startswith("crop_size"))


# -- what comes as images


def test_what_a_device_could_not_do_alike_is_done_by_the_host(folder: Path, tmp_path: Path) -> None:
    one_pass = "random_resize_param { min_size: 16 max_size: 20 } crop_size: 12"
    check_equal(data(folder, "jpeg", one_pass), pixels=False)
    check_equal(data(folder, "raw", "crop_size: 9 use_gpu_transform: false"), pixels=False)
    check_equal(data(folder, "raw", "mirror: true", batch=1), pixels=False)
    check_equal(data(folder, "raw", "crop_size: 9", batch=1))
    floats = [pb.Datum(channels=1, height=2, width=2, float_data=[n, 0.5, 1, 2]) for n in range(8)]
    write_lmdb(str(tmp_path / "floats"), [(b"%d" % n, f.SerializeToString()) for n, f in enumerate(floats)])
    check_equal(data(tmp_path, "floats", "scale: 2"), pixels=False)


@pytest.mark.parametrize(
    ("transform", "backend", "reason"),
    [
        ("", CpuBackend(), "the device is CPU"),
        (
            "random_resize_param { min_size: 16 max_size: 20 } crop_size: 12",
            CudaBackend(CpuDevice()),
            "images are resized without rounding to 8 bits",
        ),
        ("", CudaBackend(CpuDevice()), ""),
    ],
)
def test_a_wish_that_is_not_granted_is_told_with_its_reason(
    folder: Path, transform: str, backend: Backend, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        close(build(data(folder, "jpeg", f"{transform} use_gpu_transform: true"), backend))
        close(build(data(folder, "jpeg", transform), backend))
    told = [message for message in caplog.messages if "use_gpu_transform" in message]
    assert len(told) == (1 if reason else 0)
    for message in told:
        assert 'layer "data" (Data): use_gpu_transform: the host transforms images, since ' in message
        assert reason in message


# -- forms


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_images_of_16_bits_are_rounded_once_and_written_in_the_order_that_is_wanted(
    folder: Path, precision: str, channels_last: bool
) -> None:
    backend = CudaBackend(CpuDevice(), precision=precision)
    backend.memory_format = "channels_last" if channels_last else "blocked"
    spec = data(folder, "jpeg", TRANSFORMS["crop, mirror, mean image"])
    device, host = build(spec, backend), build(spec, CpuBackend())
    for _ in range(3):
        device.forward()
        host.forward()
        top = own(device.blob("data").data)
        assert top.storage.valid == {Form(backend.values, channels_last)}
        expected = host.blob("data").data.plain()
        rounded = to_floats(from_floats(expected, backend.values), backend.values)
        np.testing.assert_array_equal(top.plain(), rounded)
        assert own(device.blob("label").data).form == Form(ValueType.FLOAT32)
    close(device, host)


def test_rows_begin_as_the_operator_expects() -> None:
    assert HEAD * 4 == HEAD_BYTES
    assert Layout(3, 5, 7, False).row_bytes == HEAD_BYTES + 112


# -- memory


def test_batches_and_labels_are_written_into_memory_that_the_device_copies_from(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = CpuDevice()
    given: list[np.ndarray] = []  # type: ignore[type-arg]
    host = device.host
    monkeypatch.setattr(device, "host", lambda *args: (given.append(host(*args)), given[-1])[1])
    net = build(data(folder, "raw", ""), CudaBackend(device))
    net.forward()
    kinds = {memory.dtype.name for memory in given if memory.size > 5}
    assert kinds == {"uint8", "float32"}
    labels = own(net.blob("label").data).storage.plain
    assert labels is not None
    assert any(np.shares_memory(labels, memory) for memory in given)
    close(net)


@pytest.mark.parametrize("copies_first", [False, True], ids=["late", "copies first"])
@pytest.mark.parametrize("labels", ["", 'top: "label"'], ids=["data alone", "with labels"])
@pytest.mark.parametrize("transform", ["crop_size: 13 mirror: true", "use_gpu_transform: false"])
def test_no_batch_is_overwritten_before_its_copy_has_ended(
    folder: Path, transform: str, labels: str, copies_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cupy(capability="80", copies_first=copies_first).install(monkeypatch)
    backend = CudaBackend(CupyDevice(0))
    spec = data(folder, "raw", transform, "prefetch: 1").replace('top: "label"', labels)
    device, host = build(spec, backend), build(spec, CpuBackend())
    ops = backend.operators("DEFAULT")
    kept: list[tuple[Sequence[object], Sequence[object]]] = []
    for _ in range(9):
        device.forward()
        host.forward()
        copies = []
        for blob in device.blobs.values():  # queued: nothing of it need run before the last batch is
            copy = backend.array(blob.shape)
            ops.Power(1.0, 1.0, 0.0, blob.data, copy).forward(blob.data, copy)
            copies.append(copy)
        kept.append((copies, [blob.data.plain().copy() for blob in host.blobs.values()]))
    for copies, expected in kept:
        for copy, values in zip(copies, expected, strict=True):
            np.testing.assert_array_equal(copy.plain(), values)  # type: ignore[attr-defined]
    close(device, host)


# -- errors


def test_a_bad_record_is_told_or_replaced_as_on_the_host(tmp_path: Path) -> None:
    pixels = images(12, (3, 8, 8))
    values = [encode_pixels(p, n) for n, p in enumerate(pixels)]
    values[6] = encode_image(b"no jpeg", 6)
    write_lmdb(str(tmp_path / "bad"), [(b"%08d" % n, value) for n, value in enumerate(values)])
    spec = data(tmp_path, "bad", "mirror: true")
    for limit in (0, 1):
        nets = [
            build(spec, backend, bad_records=limit) for backend in (CudaBackend(CpuDevice()), CpuBackend())
        ]
        for net in nets:
            net.forward()
        if limit == 0:
            for net in nets:
                with pytest.raises(DataError, match=r"record 6 .*must be an image that OpenCV decodes"):
                    net.forward()
        else:
            for mine, theirs in zip(*(batches(net, 4) for net in nets), strict=True):
                for one, other in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(one, other)
            assert source_of(nets[0]).bad_records.replaced == source_of(nets[1]).bad_records.replaced
            assert source_of(nets[0]).bad_records.count == 1
        close(*nets)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (encode_pixels(images(1, (1, 8, 8))[0], 6), "all images of a source must give the same shape"),
        (
            pb.Datum(channels=3, height=8, width=8, float_data=[0.5] * 192).SerializeToString(),
            "images must have 8 bits a channel as the first .*, got float32 in .*use_gpu_transform: false",
        ),
    ],
    ids=["other channels", "floats"],
)
def test_an_image_unlike_the_first_is_told(tmp_path: Path, value: bytes, message: str) -> None:
    values = [encode_pixels(p, n) for n, p in enumerate(images(12, (3, 8, 8)))]
    values[6] = value
    write_lmdb(str(tmp_path / "odd"), [(b"%08d" % n, v) for n, v in enumerate(values)])
    net = build(data(tmp_path, "odd", ""), CudaBackend(CpuDevice()))
    net.forward()
    with pytest.raises(DataError, match=message):
        net.forward()
    close(net)
