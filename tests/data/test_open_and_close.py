"""Opening and closing every kind of source, again and again, leaves no file, thread or lock behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from dtrain.data.convert.items import ArrayItems
from dtrain.data.convert.shards import Layout, convert_shards
from dtrain.data.lmdb_reader import LmdbReader
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.data_source import DataSource
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.data.annotated_records import annotated, annotated_lmdb
from tests.data.sources import images, lmdb_of

NUM, CYCLES = 12, 25
PIXELS = images(NUM, (3, 16, 16))

SOURCES = {
    "lmdb": 'type: "Data" data_param { source: "DIR/lmdb" backend: LMDB batch_size: 4 threads: 2 }',
    "shards of lmdb": 'type: "Data" data_param { source: "DIR/shards" backend: LMDB batch_size: 4 }',
    "arrow": 'type: "Data" data_param { source: "DIR/arrow" backend: ARROW batch_size: 4 threads: 2 }',
    "parquet": 'type: "Data" data_param { source: "DIR/parquet" backend: ARROW batch_size: 4 }',
    "leveldb": 'type: "Data" data_param { source: "DIR/leveldb" backend: LEVELDB batch_size: 4 }',
    "images": 'type: "ImageData" image_data_param { source: "DIR/images/list.txt" root_folder: "DIR/images/" '
    "batch_size: 4 }",
    "hdf5": 'type: "HDF5Data" hdf5_data_param { source: "DIR/hdf5/list.txt" batch_size: 4 }',
    "boxes": 'type: "AnnotatedData" data_param { source: "DIR/boxes" backend: LMDB batch_size: 4 }',
    "windows": 'type: "WindowData" window_data_param { source: "DIR/windows.txt" batch_size: 4 } '
    "transform_param { crop_size: 8 }",
}


def make(folder: Path, kind: str) -> None:
    if kind == "boxes":
        annotated_lmdb(folder / kind, [annotated(image, [(1, (0.1, 0.1, 0.8, 0.8))]) for image in PIXELS])
    elif kind == "windows":
        cv2.imwrite(str(folder / "0.png"), PIXELS[0].transpose(1, 2, 0))
        (folder / "windows.txt").write_text(f"# 0\n{folder}/0.png\n3 16 16\n2\n1 1 2 3 9 9\n2 0 2 3 9 9\n")
    else:
        shards = 3 if kind in ("shards of lmdb", "hdf5", "arrow") else 1
        layout = Layout(format="lmdb" if kind == "shards of lmdb" else kind, shards=shards)
        out = str(folder / kind.partition(" ")[0])
        convert_shards(ArrayItems("here", PIXELS, np.arange(NUM)), out, layout)


def open_files(folder: Path) -> list[str]:
    """Files of the folder that this process has open or mapped."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except FileNotFoundError:  # the one that listed them
            continue
    maps = [line.split(maxsplit=5)[-1].strip() for line in Path("/proc/self/maps").read_text().splitlines()]
    return [name for name in found + maps if name.startswith(str(folder))]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_net_that_is_built_run_and_closed_leaves_nothing(tmp_path: Path, kind: str) -> None:
    make(tmp_path, kind)
    files = Counter(os.path.splitext(name)[0] for _, _, names in os.walk(tmp_path) for name in names)
    before = set(threading.enumerate())
    param = pb.NetParameter()
    text.parse(f'layer {{ name: "data" top: "data" top: "label" {SOURCES[kind]} }}', param)
    param.layer[0].data_param.source = param.layer[0].data_param.source.replace("DIR", str(tmp_path))
    for name in ("image_data_param", "hdf5_data_param", "window_data_param"):
        message = getattr(param.layer[0], name)
        message.source = message.source.replace("DIR", str(tmp_path))
    folder = param.layer[0].image_data_param.root_folder
    param.layer[0].image_data_param.root_folder = folder.replace("DIR", str(tmp_path))
    for _ in range(CYCLES):
        net = Net(param, Scope(CpuBackend(), pb.TRAIN))
        net.forward()
        net.forward()
        source = net.layer("data")
        assert isinstance(source, DataSource)
        source.close()
        source.close()
    del net, source
    assert not set(threading.enumerate()) - before
    assert not open_files(tmp_path)
    if kind != "leveldb":  # which writes a log of its own
        after = Counter(os.path.splitext(name)[0] for _, _, names in os.walk(tmp_path) for name in names)
        assert after == files


OTHER = """
import lmdb, sys
other = lmdb.open(sys.argv[1], max_readers=4)
for line in sys.stdin:
    print(repr(other.readers()), flush=True)
"""


def test_readers_take_no_place_in_the_table_of_an_lmdb(tmp_path: Path) -> None:
    """Another program has the database open with locks; its table of readers stays as it is."""
    path = lmdb_of(tmp_path / "db", PIXELS)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def table() -> str:
            print("?", file=other.stdin, flush=True)
            return other.stdout.readline() if other.stdout else ""

        idle = table()
        assert "no active readers" in idle
        for _ in range(20):
            readers = [LmdbReader(path) for _ in range(6)]
            with ThreadPoolExecutor(6) as pool:
                for record in pool.map(lambda reader: reader.read(5), readers):
                    assert record.labels == (5.0,)
                assert table() == idle
            for reader in readers:
                reader.close()
        other.stdin.close()
    assert not open_files(tmp_path)
