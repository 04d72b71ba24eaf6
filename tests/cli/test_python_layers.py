"""A layer written for pycaffe, in the working directory, trains unmodified."""

import re
from pathlib import Path

import pytest

from tests.cli.running import dtrain

LAYER = """
import caffe
import numpy as np


class Distance(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("two bottoms")

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff ** 2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i, sign in ((0, 1), (1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * self.diff / bottom[i].num
"""

NET = """
layer { name: "data" type: "DummyData" top: "x" top: "y" dummy_data_param {
  shape { dim: 8 dim: 5 } shape { dim: 8 dim: 3 }
  data_filler { type: "gaussian" std: 1 } data_filler { type: "constant" value: 0.5 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "Python" bottom: "ip" bottom: "y" top: "loss" loss_weight: 1
  python_param { module: "distance" layer: "Distance" } }
"""

SOLVER = """
net: "net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 60 display: 20
snapshot_prefix: "run" solver_mode: CPU random_seed: 1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("distance.py", LAYER), ("net.prototxt", NET), ("solver.prototxt", SOLVER)):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_python_layer_of_the_working_directory_trains(folder: Path, ranks: int) -> None:
    done = dtrain("solver.prototxt", at=folder, ranks=ranks)
    assert done.status == 0, done.err
    losses = [float(loss) for loss in re.findall(r"Iteration \d+ \(.*\), loss = (\S+)", done.err)]
    assert losses[-1] < 0.1 * losses[0]


def test_an_exception_in_a_python_layer_keeps_its_traceback_and_names_the_layer(folder: Path) -> None:
    (folder / "distance.py").write_text(
        LAYER.replace("self.diff[...] = bottom[0]", "raise KeyError(7); a = bottom[0]")
    )
    done = dtrain("solver.prototxt", at=folder, ranks=1)
    assert done.status != 0
    assert "KeyError: 7" in done.err
    assert "distance.py" in done.err
    assert 'layer "loss" (Python)' in done.err
