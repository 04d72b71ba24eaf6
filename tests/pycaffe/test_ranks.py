"""A script that mpirun starts on several ranks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.pycaffe import process
from tests.pycaffe.nets import TRAINED, write_net, write_solver

RNG = np.random.default_rng(0)
BATCHES = [(RNG.standard_normal((8, 6)), RNG.integers(3, size=8)) for _ in range(4)]


def trained(folder: Path, rank: int, size: int) -> list[np.ndarray]:
    """Weights after four iterations, of which this rank feeds its share of every batch."""
    text = TRAINED.replace("dim: 8", f"dim: {8 // size}")
    solver = caffe.SGDSolver(write_solver(folder, write_net(folder, text)))
    held = [blob.data for blobs in solver.net.params.values() for blob in blobs]
    for data, label in BATCHES:
        solver.net.blobs["data"].data[...] = data[rank::size]
        solver.net.blobs["label"].data[...] = label[rank::size]
        solver.step(1)
    return [values.copy() for values in held]


@pytest.mark.world_size(2)
def test_ranks_train_one_net_together(tmp_path: Path) -> None:
    comm = process.communicator()
    assert (caffe.solver_count(), caffe.solver_rank()) == (2, comm.rank)
    mine = trained(tmp_path, comm.rank, 2)
    for weights in comm.allgather_object(mine):
        for values, expected in zip(weights, mine, strict=True):
            np.testing.assert_array_equal(values, expected)
    single = subprocess.run(
        [sys.executable, "-c", ALONE, str(Path(__file__).parents[2]), str(tmp_path)],
        env={"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert single.returncode == 0, single.stderr
    with np.load(tmp_path / "alone.npz") as alone:
        for i, values in enumerate(mine):
            np.testing.assert_allclose(values, alone[f"arr_{i}"], rtol=1e-4, atol=1e-6)


ALONE = """
import sys, pathlib, numpy
sys.path.insert(0, sys.argv[1])
from tests.pycaffe.test_ranks import trained
folder = pathlib.Path(sys.argv[2])
numpy.savez(folder / "alone.npz", *trained(folder, 0, 1))
"""
