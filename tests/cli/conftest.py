"""A folder as a user has it: a data set, a net and a solver."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.running import dtrain

NET = """name: "Small"
layer {
  name: "digits"  type: "Data"  top: "data"  top: "label"
  include { phase: TRAIN }
  transform_param { scale: 0.00390625 }
  data_param { source: "data/digits_train_lmdb"  batch_size: 16  backend: LMDB }
}
layer {
  name: "digits"  type: "Data"  top: "data"  top: "label"
  include { phase: TEST }
  transform_param { scale: 0.00390625 }
  data_param { source: "data/digits_test_lmdb"  batch_size: 25  backend: LMDB }
}
layer {
  name: "pool"  type: "Pooling"  bottom: "data"  top: "pool"
  pooling_param { pool: AVE  kernel_size: 2  stride: 2 }
}
layer {
  name: "ip1"  type: "InnerProduct"  bottom: "pool"  top: "ip1"
  inner_product_param { num_output: 32  weight_filler { type: "xavier" } }
}
layer { name: "relu1"  type: "ReLU"  bottom: "ip1"  top: "ip1" }
layer {
  name: "ip2"  type: "InnerProduct"  bottom: "ip1"  top: "ip2"
  inner_product_param { num_output: 10  weight_filler { type: "xavier" } }
}
layer {
  name: "accuracy"  type: "Accuracy"  bottom: "ip2"  bottom: "label"  top: "accuracy"
  include { phase: TEST }
}
layer { name: "loss"  type: "SoftmaxWithLoss"  bottom: "ip2"  bottom: "label"  top: "loss" }
"""

SOLVER = """net: "net.prototxt"
test_iter: 7
test_interval: 20
base_lr: 0.1
momentum: 0.9
lr_policy: "fixed"
display: 10
max_iter: 20
snapshot: 10
random_seed: 3
snapshot_prefix: "runs/small"
"""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, converted once by the command itself."""
    at = tmp_path_factory.mktemp("digits")
    done = dtrain("convert", "digits", "data", at=at)
    assert (done.status, done.err) == (0, "")
    return at / "data"


@pytest.fixture
def here(tmp_path: Path, data: Path) -> Path:
    """A fresh folder with data, net.prototxt and solver.prototxt."""
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder in which a solver has run to its end, not to be changed."""
    at = tmp_path_factory.mktemp("trained")
    (at / "data").symlink_to(data)
    (at / "net.prototxt").write_text(NET)
    (at / "solver.prototxt").write_text(SOLVER)
    done = dtrain("solver.prototxt", at=at)
    assert done.status == 0, done.err
    assert (at / "runs/small_iter_20.caffemodel").exists()
    return at


@pytest.fixture
def resumable(here: Path, trained: Path) -> Path:
    """A fresh folder in which a run was stopped after 10 of 20 iterations."""
    (here / "runs").mkdir()
    for file in (trained / "runs").glob("small_iter_10.*"):
        shutil.copy(file, here / "runs")
    return here
