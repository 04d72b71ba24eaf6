"""Layers in Python that were written for Caffe, through caffe.Net and caffe.SGDSolver."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain import pycaffe as caffe
from dtrain.layers import python_face
from dtrain.pycaffe import caffe_name
from tests.pycaffe.nets import write_net, write_solver

MODULE = '''
import caffe
import numpy as np
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
import caffe.io


class SimpleLayer(caffe.Layer):
    """Multiplies by ten."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = 10 * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 10 * top[0].diff


class ExceptionLayer(SimpleLayer):
    def setup(self, bottom, top):
        raise RuntimeError


class ParameterLayer(caffe.Layer):
    def setup(self, bottom, top):
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 0
        self.told = []

    def tell(self, what):
        self.told.append(what)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        pass

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[0] = 1


class PhaseLayer(caffe.Layer):
    def setup(self, bottom, top):
        self.value = eval(self.param_str)["base"] + (self.phase == caffe.TEST)

    def reshape(self, bottom, top):
        top[0].reshape()

    def forward(self, bottom, top):
        top[0].data[()] = self.value


class EuclideanLossLayer(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data, dtype=np.float32)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if not propagate_down[i]:
                continue
            if i == 0:
                sign = 1
            else:
                sign = -1
            bottom[i].diff[...] = sign * self.diff / bottom[i].num
'''


def layer(kind: str, name: str, bottom: str, top: str, rest: str = "") -> str:
    bottoms = " ".join(f'bottom: "{blob}"' for blob in bottom.split())
    python = f'python_param {{ module: "my_layers" layer: "{kind}" param_str: "{{\'base\': 3}}" }}'
    return f'layer {{ type: "Python" name: "{name}" {bottoms} top: "{top}" {python} {rest} }}\n'


INPUT = 'name: "pythonnet" force_backward: true input: "data" input_shape { dim: 10 dim: 9 dim: 8 }\n'
THREE = (
    INPUT
    + layer("SimpleLayer", "one", "data", "one")
    + layer("SimpleLayer", "two", "one", "two")
    + layer("SimpleLayer", "three", "two", "three")
)


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(tmp_path)
    tmp_path.joinpath("my_layers.py").write_text(MODULE)
    monkeypatch.delitem(sys.modules, "my_layers", raising=False)
    yield
    sys.modules.pop("my_layers", None)


def test_forward_and_backward_run_the_layers_code(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, THREE), caffe.TRAIN)
    net.blobs["data"].data[...] = 8
    net.forward()
    assert (net.blobs["three"].data == 8000).all()
    net.blobs["three"].diff[...] = 7
    net.backward()
    assert (net.blobs["data"].diff == 7000).all()


def test_the_layers_reshape_follows_the_input(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, THREE), caffe.TRAIN)
    net.blobs["data"].reshape(4, 4, 4, 4)
    net.forward()
    assert {blob.data.shape for blob in net.blobs.values()} == {(4, 4, 4, 4)}


def test_an_exception_in_the_layer_is_a_runtime_error(tmp_path: Path) -> None:
    text = INPUT + layer("ExceptionLayer", "bad", "data", "top")
    with pytest.raises(RuntimeError, match=r'layer "bad".*ExceptionLayer\.setup raised Runt'):
        caffe.Net(write_net(tmp_path, text), caffe.TEST)


def test_parameters_of_a_layer_are_saved_loaded_and_shared(tmp_path: Path) -> None:
    file = write_net(tmp_path, INPUT + layer("ParameterLayer", "layer", "data", "top"))
    net = caffe.Net(file, caffe.TRAIN)
    net.forward()
    net.backward()
    mine = net.layers[list(net._layer_names).index("layer")]
    assert (mine.blobs[0].data[0], mine.blobs[0].diff[0]) == (0, 1)
    mine.blobs[0].data[0] += mine.blobs[0].diff[0]
    assert net.params["layer"][0].data[0] == 1
    weights = str(tmp_path / "w.caffemodel")
    net.save(weights)
    mine.blobs[0].data[0] = -1
    net.copy_from(weights)
    assert mine.blobs[0].data[0] == 1
    other = caffe.Net(file, caffe.TRAIN)
    other.share_with(net)
    assert other.layers[1].blobs[0].data[0] == 1
    mine.blobs[0].data[0] = 5
    assert other.layers[1].blobs[0].data[0] == 5


def test_net_layers_holds_the_users_object(tmp_path: Path) -> None:
    net = caffe.Net(write_net(tmp_path, INPUT + layer("ParameterLayer", "layer", "data", "top")), caffe.TRAIN)
    user = net.layer_dict["layer"]
    user.tell("roidb")  # type: ignore[union-attr]
    assert user.told == ["roidb"]  # type: ignore[union-attr]
    assert isinstance(user, caffe.Layer)
    assert user.type == "Python"


@pytest.mark.parametrize(("phase", "value"), [(caffe.TRAIN, 3), (caffe.TEST, 4)])
def test_a_layer_reads_its_phase_and_its_text(tmp_path: Path, phase: int, value: int) -> None:
    net = caffe.Net(write_net(tmp_path, layer("PhaseLayer", "layer", "", "phase")), phase)
    assert net.forward()["phase"] == value


def test_a_loss_in_python_trains_as_the_one_of_the_framework(tmp_path: Path) -> None:
    start = """
        layer { name: "data" type: "DummyData" top: "data" top: "wanted" dummy_data_param {
          shape { dim: 4 dim: 6 } shape { dim: 4 dim: 2 } data_filler { type: "uniform" }
          data_filler { type: "constant" value: 0.5 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {
          num_output: 2 weight_filler { type: "xavier" } } }
    """
    theirs = 'layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "wanted" top: "loss" }'
    results = []
    for loss in (theirs, layer("EuclideanLossLayer", "loss", "ip wanted", "loss", "loss_weight: 1")):
        solver = caffe.SGDSolver(write_solver(tmp_path, write_net(tmp_path, start + loss)))
        solver.step(5)
        results.append(solver.net.params["ip"][0].data.copy())
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_the_name_caffe_means_this_package_and_its_parts(tmp_path: Path) -> None:
    caffe.Net(write_net(tmp_path, THREE), caffe.TRAIN)
    assert sys.modules["caffe"] is caffe
    for name in ("io", "net_spec", "draw", "coord_map", "classifier", "detector", "proto"):
        assert importlib.import_module(f"caffe.{name}") is getattr(caffe, name)
    assert sys.modules["my_layers"].caffe_pb2 is caffe.proto.caffe_pb2
    assert importlib.import_module("caffe.proto.caffe_pb2").NetParameter is caffe.proto.caffe_pb2.NetParameter
    assert importlib.import_module("caffe.pycaffe").Net is caffe.Net


def test_the_package_takes_the_place_of_the_few_classes_for_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "caffe")
    python_face.provide_caffe()
    assert sys.modules["caffe"] is not caffe
    caffe_name.provide()
    assert sys.modules["caffe"] is caffe


def test_another_caffe_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = type(sys)("caffe")
    monkeypatch.setitem(sys.modules, "caffe", other)
    caffe_name.provide()
    assert sys.modules["caffe"] is other
    monkeypatch.delitem(sys.modules, "caffe")
    tmp_path.joinpath("caffe.py").write_text("")
    importlib.invalidate_caches()
    caffe_name.provide()
    assert "caffe" not in sys.modules


def test_a_script_may_import_its_layers_before_it_makes_a_net(tmp_path: Path) -> None:
    script = "from dtrain import pycaffe\nimport my_layers, caffe\nassert caffe is pycaffe, caffe"
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root}:{tmp_path}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
