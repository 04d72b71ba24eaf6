"""Every layer that reads samples tells at the start how much it reads, and a script's net closes it."""

from __future__ import annotations

import gc
import logging
import os
import threading
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from dtrain.cli.test_command import tell_share
from dtrain.cli.train_command import tell_scale
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.pycaffe.net import Net as ScriptNet
from dtrain.solvers.settings import Settings
from tests.data.annotated_records import annotated, annotated_lmdb
from tests.data.sources import images

SOURCES = {
    "hdf5": 'type: "HDF5Data" hdf5_data_param { source: "DIR/list.txt" batch_size: 4 }',
    "windows": 'type: "WindowData" window_data_param { source: "DIR/windows.txt" batch_size: 4 } '
    "transform_param { crop_size: 8 }",
    "boxes": 'type: "AnnotatedData" data_param { source: "DIR/boxes" backend: LMDB batch_size: 4 }',
    "memory": 'type: "MemoryData" memory_data_param { batch_size: 4 channels: 1 height: 1 width: 1 }',
}
TRAINED = {
    "hdf5": "data: batch 4 x iter_size 3 x 1 ranks = 12 images an iteration; 6 images in DIR/list.txt = 0.5 "
    "iterations an epoch; max_iter 5 = 10.0 epochs",
    "windows": "data: batch 4 x iter_size 3 x 1 ranks = 12 images an iteration; drawn at random from "
    "DIR/windows.txt; max_iter 5 = 60 images",
    "boxes": "data: batch 4 x iter_size 3 x 1 ranks = 12 images an iteration; 3 images in DIR/boxes = 0.2 "
    "iterations an epoch; max_iter 5 = 20.0 epochs",
}
TESTED = {
    "hdf5": "data: 5 batches of 4 = 20 images, of 6 in DIR/list.txt",
    "windows": "data: 5 batches of 4 = 20 images, drawn at random from DIR/windows.txt",
    "boxes": "data: 5 batches of 4 = 20 images, of 3 in DIR/boxes",
}


@pytest.fixture
def spec(tmp_path: Path, kind: str) -> str:
    """A net of that one layer, in a file."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"], file["label"] = np.zeros((6, 1, 2, 2)), np.zeros(6)
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.h5\n")
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "windows.txt").write_text(f"# 0\n{tmp_path}/0.png\n3 20 30\n2\n1 1 2 3 9 9\n2 0 2 3 9 9\n")
    annotated_lmdb(tmp_path / "boxes", [annotated(image) for image in images(3)])
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'layer {{ name: "data" top: "data" top: "label" {SOURCES[kind]} }}'.replace("DIR", str(tmp_path))
    )
    return str(path)


@pytest.mark.parametrize("kind", SOURCES)
def test_a_source_tells_its_scale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spec: str, kind: str
) -> None:
    param = pb.NetParameter()
    text.parse(Path(spec).read_text(), param)
    net = Net(param, Scope(CpuBackend(), pb.TRAIN))
    caplog.set_level(logging.INFO)
    tell_scale(Settings(pb.SolverParameter(iter_size=3, max_iter=5), None), net, SingleCommunicator())
    tell_share(net, 5)
    told = [record.getMessage() for record in caplog.records]
    expected = [lines[kind].replace("DIR", str(tmp_path)) for lines in (TRAINED, TESTED) if kind in lines]
    assert told == expected
    net.layer("data").close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["hdf5", "windows", "boxes"])
def test_a_net_that_a_script_drops_closes_its_sources(tmp_path: Path, spec: str, kind: str) -> None:
    before = set(threading.enumerate())
    net = ScriptNet(spec, pb.TRAIN)
    net.forward()
    del net
    gc.collect()
    assert not set(threading.enumerate()) - before
    open_now = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert not [name for name in open_now if name.startswith(str(tmp_path))]
