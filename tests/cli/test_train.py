"""`dtrain train` from a prototxt to a trained net: alone, with ranks, resumed, signalled."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.blobproto import blobproto_to_array
from dtrain.proto.files import read_binary
from tests.cli.running import dtrain, dtrain_signalled, surroundings

ENDLESS = ("max_iter: 20", "max_iter: 1000000")


def weights(path: Path) -> dict[str, list[np.ndarray]]:
    net = pb.NetParameter()
    read_binary(path, net)
    return {layer.name: [blobproto_to_array(blob, where="") for blob in layer.blobs] for layer in net.layer}


def edit(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def whole_snapshots(at: Path) -> list[int]:
    """Iterations of which all three files are there."""
    names = {file.name for file in (at / "runs").iterdir()}
    found = [
        int(match[1]) for name in names if (match := re.fullmatch(r"small_iter_(\d+)\.dtrain\.json", name))
    ]
    for it in found:
        assert {f"small_iter_{it}.caffemodel", f"small_iter_{it}.solverstate"} <= names
    return sorted(found)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_solver_file_alone_trains_to_a_good_score(here: Path, ranks: int) -> None:
    done = dtrain("solver.prototxt", at=here, ranks=ranks)
    assert done.status == 0, done.err
    assert done.faults == []
    assert f"batch 16 x iter_size 1 x {ranks} ranks = {16 * ranks} images an iteration" in done.err
    scores = re.findall(r"Test net output #0: accuracy = (\S+)", done.err)
    assert len(scores) == 2
    assert float(scores[0]) < 0.4
    assert float(scores[1]) > 0.6
    assert "Optimization Done." in done.err
    assert whole_snapshots(here) == [10, 20]


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_resumed_run_ends_as_the_whole_one_did(resumable: Path, trained: Path, ranks: int) -> None:
    if ranks == 2:  # a whole run of two ranks, which see other images than one
        assert dtrain("solver.prototxt", at=resumable, ranks=2).status == 0
        trained = resumable
        whole = weights(trained / "runs/small_iter_20.caffemodel")
        for file in (resumable / "runs").glob("small_iter_20.*"):
            file.unlink()
    else:
        whole = weights(trained / "runs/small_iter_20.caffemodel")
    done = dtrain("train", "--snapshot", "auto", "solver.prototxt", at=resumable, ranks=ranks)
    assert done.status == 0, done.err
    assert "Restoring previous solver status from runs/small_iter_10.solverstate" in done.err
    resumed = weights(resumable / "runs/small_iter_20.caffemodel")
    assert resumed.keys() == whole.keys()
    for name, blobs in whole.items():
        for a, b in zip(blobs, resumed[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_snapshot_auto_without_a_snapshot_starts_anew_and_says_so(here: Path) -> None:
    edit(here / "solver.prototxt", "max_iter: 20", "max_iter: 2")
    done = dtrain("train", "--snapshot", "auto", "solver.prototxt", at=here)
    assert done.status == 0
    assert "no whole snapshot of runs/small yet: starting anew" in done.err
    assert whole_snapshots(here) == [2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_signal_stops_all_ranks_with_a_snapshot(here: Path, number: signal.Signals, ranks: int) -> None:
    edit(here / "solver.prototxt", *ENDLESS)
    edit(here / "solver.prototxt", "snapshot: 10", "snapshot: 0")
    edit(here / "solver.prototxt", "test_interval: 20", "test_interval: 1000000")
    done = dtrain_signalled(number, "Iteration 20 ", "solver.prototxt", at=here, ranks=ranks)
    assert done.status == 0, done.err
    assert "Optimization stopped early." in done.err
    (last,) = whole_snapshots(here)
    assert last >= 20
    assert "Traceback" not in done.err


def test_a_hangup_takes_a_snapshot_and_training_goes_on(here: Path) -> None:
    edit(here / "solver.prototxt", "max_iter: 20", "max_iter: 3000")
    edit(here / "solver.prototxt", "snapshot: 10", "snapshot: 0")
    edit(here / "solver.prototxt", "test_interval: 20", "test_interval: 1000000")
    done = dtrain_signalled(signal.SIGHUP, "Iteration 20 ", "solver.prototxt", at=here)
    assert done.status == 0, done.err
    first, last = whole_snapshots(here)
    assert first < last == 3000
    assert "Optimization Done." in done.err


def test_weights_are_where_training_starts(here: Path, trained: Path) -> None:
    edit(here / "solver.prototxt", "max_iter: 20", "max_iter: 0")
    model = trained / "runs/small_iter_20.caffemodel"
    done = dtrain("train", "-solver=solver.prototxt", f"-weights={model}", "-gpu_memory=0", at=here)
    assert done.status == 2  # an option that is not one
    done = dtrain("train", "-solver=solver.prototxt", f"-weights={model}", at=here)
    assert done.status == 0, done.err
    for name, blobs in weights(model).items():
        for a, b in zip(blobs, weights(here / "runs/small_iter_0.caffemodel")[name], strict=True):
            np.testing.assert_array_equal(a, b)


def test_training_loads_no_library_that_it_does_not_use(here: Path) -> None:
    program = """
import sys
from dtrain.cli.main import run
status = run(["solver.prototxt"])
heavy = {"cv2", "pyarrow", "h5py", "sklearn", "pandas", "prometheus_client", "mpi4py"}
print(status, *(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=here, env=surroundings(), capture_output=True, text=True
    )
    assert done.stdout == "0\n", done.stderr
