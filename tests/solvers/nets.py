"""A small net on a small LMDB of random images, and solvers for it."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np

from dtrain.comm.communicator import Communicator
from dtrain.comm.single import SingleCommunicator
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.metrics.reporter import Reporter
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net
from dtrain.solvers.settings import Settings
from dtrain.solvers.signals import Signals

RECORDS = 44
CLASSES = 3

SOLVER = """
base_lr: 0.1 momentum: 0.9 weight_decay: 0.01 lr_policy: "step" gamma: 0.7 stepsize: 3 max_iter: 10
snapshot_after_train: false
"""

NET = """
name: "tiny"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.01 mirror: true }
  data_param { source: "SOURCE" backend: LMDB batch_size: BATCH FIELDS } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  transform_param { scale: 0.01 }
  data_param { source: "SOURCE" backend: LMDB batch_size: 5 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" inner_product_param {
  num_output: 6 weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.1 } } }
EXTRA
layer { name: "drop" type: "Dropout" bottom: "ip1" top: "ip1" }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "tanh" }
layer { name: "ip2" type: "InnerProduct" bottom: "tanh" top: "ip2"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
  include { phase: TEST } }
"""


def make_lmdb(folder: Path) -> Path:
    """RECORDS images (2, 4, 4) whose label can be learned."""
    rng = np.random.default_rng(5)
    path = folder / "tiny_lmdb"
    path.mkdir()
    with lmdb.open(str(path), map_size=1 << 22) as environment, environment.begin(write=True) as records:
        for i in range(RECORDS):
            label = int(rng.integers(CLASSES))
            pixels = rng.integers(0, 150, (2, 4, 4), np.uint8)
            pixels[label % 2, label] += 100
            datum = pb.Datum(channels=2, height=4, width=4, data=pixels.tobytes(), label=label)
            records.put(f"{i:08d}".encode(), datum.SerializeToString())
    return path


def make_solver(
    source: Path,
    settings: str = "",
    *,
    comm: Communicator | None = None,
    batch: int = 4,
    reporter: Reporter | None = None,
    signals: Signals | None = None,
    seed: int = 3,
    engine: str = "DEFAULT",
    data: str = "",
    extra_layer: str = "",
) -> Solver:
    """A solver of NET; `settings` come on top of SOLVER's, `data` of the training layer's data_param.

    `extra_layer` comes behind ip1. Snapshots go beside the LMDB.
    """
    param = pb.SolverParameter()
    asked = pb.SolverParameter()
    text.parse(SOLVER, param)
    text.parse(settings, asked)
    param.MergeFrom(asked)
    net_text = NET.replace("SOURCE", str(source)).replace("BATCH", str(batch)).replace("FIELDS", data)
    net_text = net_text.replace("EXTRA", extra_layer)
    text.parse(net_text, param.net_param)
    if not param.snapshot_prefix:
        param.snapshot_prefix = str(source.parent / "tiny")
    group = comm or SingleCommunicator()
    known = Settings(param)
    backend = CpuBackend(engine=engine)
    net = build_train_net(known, backend, group, seed)
    tests = build_test_nets(known, backend, group, seed, net)
    return Solver(param, net, tests, group, reporter=reporter, signals=signals)


def bits(solver: Solver) -> bytes:
    """All weights and all of the history."""
    arrays = [*(p.blob.data.plain() for p in solver.net.params.owned), *solver.history()]
    return b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)
