"""HDF5Data deals rows of many files to ranks; HDF5Output writes what it is given."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from dtrain.data import hdf5_rows
from dtrain.data.sampler import Draw, Numbers
from dtrain.errors import ConfigError, DataError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.hdf5_data import HDF5Data
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.layers.gradient import Values

COUNTS = (4, 1, 7)  # rows of the files
ROWS = sum(COUNTS)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A list of three files whose row i holds i: "data" (n, 2, 3) floats, "label" (n,) integers."""
    names = []
    first = 0
    for number, count in enumerate(COUNTS):
        path = tmp_path / f"part{number}.h5"
        with h5py.File(path, "w") as file:
            rows = np.arange(first, first + count)
            data = rows[:, None, None] + np.arange(6).reshape(2, 3) / 10
            file.create_dataset("data", data=data, chunks=(1, 2, 3), compression="gzip")
            file["label"] = rows.astype(np.int64)
        names.append(str(path))
        first += count
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names) + "\n")
    return listed


def build(
    source: Path,
    rest: str = "",
    *,
    batch_size: int = 3,
    rank: int = 0,
    size: int = 1,
    phase: int = pb.TRAIN,
    test_iter: int = 0,
    tops: str = 'top: "data" top: "label"',
) -> Net:
    param = pb.NetParameter(name="net")
    text.parse(
        f'layer {{ name: "rows" type: "HDF5Data" {tops} '
        f'hdf5_data_param {{ source: "{source}" batch_size: {batch_size} {rest} }} }}',
        param,
    )
    return Net(param, Scope(CpuBackend(), phase, rank=rank, size=size, test_iter=test_iter))


def labels(net: Net, batches: int) -> list[list[int]]:
    found = []
    for _ in range(batches):
        net.forward()
        values = net.blob("label").data.plain()
        np.testing.assert_allclose(
            net.blob("data").data.plain(),
            values[:, None, None] + np.arange(6, dtype=np.float32).reshape(2, 3) / 10,
            rtol=1e-6,
        )
        found.append([int(value) for value in values])
    return found


def test_batches_go_on_into_the_next_file_and_from_the_start_again(source: Path) -> None:
    net = build(source, batch_size=5)
    assert net.blob("data").shape == (5, 2, 3)
    assert net.blob("label").shape == (5,)
    assert labels(net, 3) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 0, 1, 2]]


def test_sample_i_goes_to_rank_i_mod_size(source: Path) -> None:
    ranks = [labels(build(source, rank=r, size=2), 2) for r in range(2)]
    assert ranks == [[[0, 2, 4], [6, 8, 10]], [[1, 3, 5], [7, 9, 11]]]


def test_test_batches_are_dealt_whole(source: Path) -> None:
    ranks = [
        labels(build(source, rank=r, size=2, phase=pb.TEST, test_iter=3), n) for r, n in ((0, 2), (1, 1))
    ]
    assert ranks == [[[0, 1, 2], [6, 7, 8]], [[3, 4, 5]]]


def test_shuffling_mixes_files_and_rows_and_serves_each_row_once_an_epoch(source: Path) -> None:
    served = [row for batch in labels(build(source, "shuffle: true"), 8) for row in batch]
    first, second = served[:ROWS], served[ROWS:]
    assert sorted(first) == sorted(second) == list(range(ROWS))
    assert first != second, "every epoch has an order of its own"
    assert first != list(range(ROWS))
    ends = np.cumsum(COUNTS)
    files = np.searchsorted(ends, first, side="right")
    assert np.count_nonzero(np.diff(files)) == len(COUNTS) - 1, "a file's rows follow each other"


def test_shuffled_ranks_share_the_stream_of_one(source: Path) -> None:
    alone = [row for batch in labels(build(source, "shuffle: true"), 8) for row in batch]
    for rank in range(2):
        mine = [
            row for batch in labels(build(source, "shuffle: true", rank=rank, size=2), 4) for row in batch
        ]
        assert mine == alone[rank::2]


@pytest.mark.parametrize("shuffle", ["", "shuffle: true"])
@pytest.mark.parametrize(("size", "batch_size"), [(1, 5), (2, 3), (4, 2)])
def test_every_row_is_served_once_an_epoch_at_any_number_of_ranks(
    source: Path, size: int, batch_size: int, shuffle: str
) -> None:
    steps = 3 * ROWS // batch_size + 1  # epochs end inside batches
    ranks = [
        labels(build(source, shuffle, batch_size=batch_size, rank=r, size=size), steps) for r in range(size)
    ]
    stream = np.array(ranks).transpose(1, 2, 0).ravel().tolist()  # sample i is rank i mod size's
    epochs = [stream[start : start + ROWS] for start in range(0, len(stream) - ROWS + 1, ROWS)]
    assert len(epochs) >= 3
    for epoch in epochs:
        assert sorted(epoch) == list(range(ROWS))
    alone = [row for batch in labels(build(source, shuffle, batch_size=1), len(stream)) for row in batch]
    assert stream == alone


@pytest.mark.parametrize(("shuffle", "rank", "size"), [("", 0, 1), ("", 1, 2), ("shuffle: true", 2, 4)])
def test_a_large_file_is_read_a_batch_ahead_and_never_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffle: str, rank: int, size: int
) -> None:
    num, batch_size, steps = 4000, 8, 5
    with h5py.File(tmp_path / "large.h5", "w") as file:  # 4 MB
        file.create_dataset("data", (num, 1, 16, 16), np.float32, chunks=(4, 1, 16, 16))
        file["label"] = np.arange(num)
    (tmp_path / "list.txt").write_text(str(tmp_path / "large.h5"))
    asked: list[Numbers] = []
    inner = hdf5_rows._rows_of

    def noting(dataset: Any, wanted: Numbers) -> NDArray[Any]:
        if len(dataset) == num:  # a thread of another test's layer may still read
            asked.append(wanted)
        return inner(dataset, wanted)

    monkeypatch.setattr(hdf5_rows, "_rows_of", noting)
    net = build(tmp_path / "list.txt", shuffle, batch_size=batch_size, rank=rank, size=size)
    assert not asked, "set-up reads no row"
    mine = []
    for _ in range(steps):
        net.forward()
        mine += net.blob("label").data.plain().tolist()
    net.layer("rows").close()  # type: ignore[attr-defined]
    assert {len(wanted) for wanted in asked} == {batch_size}
    assert len(asked) == 2 * (steps + 1), "one batch ahead, of data and of labels"
    assert {row for wanted in asked[: 2 * steps] for row in wanted} == set(mine)
    if not shuffle:
        assert mine == list(range(rank, size * steps * batch_size, size))


def test_closing_ends_the_thread_and_the_file_again_and_again(source: Path) -> None:
    def cycle() -> None:
        net = build(source)
        labels(net, 2)
        net.layer("rows").close()  # type: ignore[attr-defined]
        net.layer("rows").close()  # type: ignore[attr-defined]

    others = set(threading.enumerate())
    for _ in range(30):
        cycle()
    assert not set(threading.enumerate()) - others
    targets = {os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    assert not [target for target in targets if target.startswith(str(source.parent))]


def test_seek_goes_on_where_another_job_stopped(source: Path) -> None:
    whole = labels(build(source, "shuffle: true"), 6)
    net = build(source, "shuffle: true", rank=1, size=3, batch_size=1)
    layer = net.layer("rows")
    assert isinstance(layer, HDF5Data)
    layer.seek(9)
    assert labels(net, 2) == [[whole[3][1]], [whole[4][1]]]
    assert layer.position() == 15
    layer.close()
    assert labels(net, 1) == [[whole[5][1]]]


def test_the_next_batch_is_read_while_the_step_runs(source: Path) -> None:
    net = build(source)
    layer = net.layer("rows")
    assert isinstance(layer, HDF5Data)
    read = threading.Event()
    first = labels(net, 1)
    inner = layer._read

    def noting(draw: Draw) -> None:
        inner(draw)
        read.set()

    layer._read = noting  # type: ignore[method-assign]
    second = labels(net, 1)
    assert read.wait(10), "nobody asked for the third batch yet"
    assert layer.position() == 2 * layer.batch_size
    assert first + second + labels(net, 1) == labels(build(source), 3)


def test_a_missing_dataset_is_named_with_those_that_exist(source: Path) -> None:
    with pytest.raises(DataError, match=r'part0.h5: .* got no "depth" \(datasets: data, label\)'):
        build(source, tops='top: "depth"')


def test_files_that_disagree_are_named(source: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file["data"] = np.zeros((2, 9))
        file["label"] = np.zeros(2)
    with pytest.raises(DataError, match=r"part1.h5: rows must have the shapes of the files before it"):
        build(source)
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file["data"] = np.zeros((2, 2, 3))
        file["label"] = np.zeros(3)
    with pytest.raises(DataError, match=r'same number of rows, got 3 of "label" after 2 of "data"'):
        build(source)
    with h5py.File(tmp_path / "part1.h5", "w") as file:
        file["data"] = "text"
    with pytest.raises(DataError, match=r'dataset "data" must hold numbers'):
        build(source)


def test_a_source_that_is_no_list_of_hdf5_files_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: must be a readable list of HDF5 files, got No such file"):
        build(tmp_path / "none.txt")
    source.write_text("")
    with pytest.raises(DataError, match="must list at least one HDF5 file"):
        build(source)
    source.write_text(str(source))
    with pytest.raises(DataError, match=r"list.txt: must list HDF5 files, got .*list.txt"):
        build(source)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, got 0"):
        build(source, batch_size=0)


def output_net(path: Path, data: Values, label: Values, *, rank: int = 0, size: int = 1) -> Net:
    param = pb.NetParameter(name="net")
    text.parse(
        f"""
        layer {{ name: "d" type: "Input" top: "d" }}
        layer {{ name: "l" type: "Input" top: "l" }}
        layer {{ name: "out" type: "HDF5Output" bottom: "d" bottom: "l"
                 hdf5_output_param {{ file_name: "{path}" }} }}
        """,
        param,
    )
    param.layer[0].input_param.shape.add(dim=data.shape)
    param.layer[1].input_param.shape.add(dim=label.shape)
    net = Net(param, Scope(CpuBackend(), pb.TEST, rank=rank, size=size))
    net.blob("d").data.plain_overwrite()[...] = data
    net.blob("l").data.plain_overwrite()[...] = label
    return net


def test_output_gathers_the_batches_of_a_run_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "out.h5"
    data = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    for _ in range(2):
        net = output_net(path, data, np.array([1, 2]))
        net.forward()
        net.blob("d").data.plain_mutable()[...] += 100
        net.forward()
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["data"][:], np.concatenate([data, data + 100])[..., None])
        np.testing.assert_array_equal(file["label"][:].ravel(), [1, 2, 1, 2])
        assert file["label"].shape == (4, 1, 1, 1)
        assert file["data"].dtype == np.float32


def test_output_of_several_ranks_goes_to_a_file_each(tmp_path: Path) -> None:
    for rank in range(2):
        output_net(tmp_path / "out.h5", np.full((1, 2), rank), np.array([rank]), rank=rank, size=2).forward()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.rank0.h5", "out.rank1.h5"]
    with h5py.File(tmp_path / "out.rank1.h5") as file:
        np.testing.assert_array_equal(file["data"][:].ravel(), [1, 1])


def test_output_names_what_it_cannot_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bottom\[1\] must have 2 rows, as bottom\[0\], got 3"):
        output_net(tmp_path / "out.h5", np.zeros((2, 2)), np.zeros(3))
    net = output_net(tmp_path / "absent" / "out.h5", np.zeros((2, 2)), np.zeros(2))
    with pytest.raises(DataError, match=r"out.h5: must be a writable HDF5 file"):
        net.forward()
    with pytest.raises(ConfigError, match="file_name must be the path of a file, got none"):
        _without_name()


def _without_name() -> None:
    param = pb.NetParameter(name="net")
    text.parse(
        'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } } '
        'layer { name: "out" type: "HDF5Output" bottom: "d" bottom: "d" }',
        param,
    )
    Net(param, Scope(CpuBackend(), pb.TEST))
