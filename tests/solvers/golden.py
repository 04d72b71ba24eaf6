"""Twelve iterations of BVLC Caffe: solver files, the batch of each step, and the weights after it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.proto.files import read_net, read_solver
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_train_net
from dtrain.solvers.settings import Settings
from tests.shared import SHARED, shared_path

Values = NDArray[np.float32]

NAMES = sorted(p.name.split(".")[0] for p in (SHARED / "golden" / "solvers").glob("*.solver.prototxt"))


@functools.cache
def stored() -> dict[str, Values]:
    """Everything in solvers.npz: data, label, NAME|w|ITER|LAYER|J, NAME|loss."""
    with np.load(shared_path("golden", "solvers", "solvers.npz")) as arrays:
        return {key: arrays[key] for key in arrays.files}


def weights_at(name: str, it: int) -> dict[tuple[str, int], Values]:
    """Caffe's weights after `it` iterations, by layer and blob."""
    found = {}
    for key, value in stored().items():
        parts = key.split("|")
        if parts[:3] == [name, "w", str(it)]:
            found[parts[3], int(parts[4])] = value
    return found


def make_solver(
    name: str,
    engine: str = "DEFAULT",
    comm: Communicator | None = None,
    prefix: Path | None = None,
    batch: int = 6,
) -> Solver:
    """The configuration's solver, with random weights yet."""
    path = shared_path("golden", "solvers", f"{name}.solver.prototxt")
    param, source = read_solver(path)
    if prefix is None:
        param.snapshot = 0  # nothing asks for the files
    else:
        param.snapshot_prefix = str(prefix)
    group = comm or SingleCommunicator()
    description, _ = read_net(path.parent / param.net)
    for shape in description.layer[0].input_param.shape:
        shape.dim[0] = batch
    param.ClearField("net")
    param.net_param.CopyFrom(description)
    net = build_train_net(Settings(param, source), CpuBackend(engine=engine), group, seed=1)
    return Solver(param, net, (), group, source=source)


def start_as_caffe(solver: Solver, name: str) -> None:
    """Give the solver the weights that Caffe started from."""
    for (layer, j), value in weights_at(name, 0).items():
        solver.net.layer(layer).blobs[j].data.plain_overwrite()[...] = value


def feed(solver: Solver, part: slice = slice(None)) -> None:
    """Put the batch of the coming iteration, or a part of it, into the Input blobs."""
    for blob in ("data", "label"):
        solver.net.blob(blob).data.plain_overwrite()[...] = stored()[blob][solver.iter][part]


def train(solver: Solver, until: int) -> list[float]:
    """Step by step up to iteration `until`; the loss of each."""
    losses = []
    while solver.iter < until:
        feed(solver)
        solver.step(1)
        losses.append(float(solver.net.blob("loss").data.plain()))
    return losses


def assert_weights(solver: Solver, expected: dict[tuple[str, int], Values], told: str) -> None:
    """Weights agree to Caffe's float32 rounding."""
    assert expected, f"{told}: there are weights to compare"
    for (layer, j), value in expected.items():
        mine = solver.net.layer(layer).blobs[j].data.plain()
        np.testing.assert_allclose(mine, value, rtol=1e-4, atol=1e-6, err_msg=f"{told}: {layer}[{j}]")
