"""Layers written by users in Python."""

from __future__ import annotations

import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dtrain.errors import ConfigError, DataError
from dtrain.layers import python_face
from dtrain.proto import dtrain_pb2 as pb
from tests.layers.gradient import build_net, check_gradient

Write = Callable[[str], None]

MODULE = """
import caffe
import numpy as np

class Scale(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 1:
            raise Exception("one bottom, please")
        self.factor = float(eval(self.param_str)["factor"])
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = np.arange(1, bottom[0].channels + 1)

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.factor * self.blobs[0].data[None, :, None] * bottom[0].data

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += self.factor * (top[0].diff * bottom[0].data).sum(axis=(0, 2))
        if propagate_down[0]:
            bottom[0].diff[...] = self.factor * self.blobs[0].data[None, :, None] * top[0].diff

class Loss(caffe.Layer):
    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff ** 2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i in range(2):
            if propagate_down[i]:
                bottom[i].diff[...] = (1 if i == 0 else -1) * top[0].diff[0] * self.diff / bottom[i].num

class Growing(caffe.Layer):
    def setup(self, bottom, top):
        self.rows = 0

    def reshape(self, bottom, top):
        self.rows += 1
        top[0].reshape(self.rows, self.phase, np.int64(3))

    def forward(self, bottom, top):
        top[0].data[...] = self.rows

class Silent(Growing):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def backward(self, top, propagate_down, bottom):
        pass

class Failing(Silent):
    def forward(self, bottom, top):
        return self.deeper()

    def deeper(self):
        return 1 / 0

class Late(Silent):
    def forward(self, bottom, top):
        self.blobs.add_blob(1)

class Unfinished(caffe.Layer):
    def setup(self, bottom, top):
        pass

class Foreign:
    pass
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module user_layers that the test may import, as if no other test had."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "user_layers", raising=False)
    monkeypatch.delitem(sys.modules, "caffe", raising=False)

    def write_module(text: str) -> None:
        tmp_path.joinpath("user_layers.py").write_text(textwrap.dedent(text))

    write_module(MODULE)
    yield write_module
    sys.modules.pop("user_layers", None)
    sys.modules.pop("caffe", None)


def python(layer: str, bottoms: str = "x", rest: str = "", module: str = "user_layers") -> str:
    told = " ".join(f'bottom: "{name}"' for name in bottoms.split())
    return f"""
        layer {{
          name: "mine" type: "Python" {told} top: "y" {rest}
          python_param {{ module: "{module}" layer: "{layer}" param_str: "{{'factor': 2.5}}" }}
        }}
    """


X = {"x": np.random.default_rng(0).standard_normal((2, 3, 4))}


def test_a_python_layer_with_a_parameter_passes_the_gradient_check(write: Write) -> None:
    net = check_gradient(python("Scale"), X)
    np.testing.assert_array_equal(net.layer("mine").blobs[0].data.plain(), [1, 2, 3])


def test_a_python_loss_passes_the_gradient_check(write: Write) -> None:
    inputs = {"a": np.ones((4, 3)), "b": np.arange(12.0).reshape(4, 3)}
    check_gradient(python("Loss", "a b", "loss_weight: 0.5"), inputs)


def test_float32_values_go_in_and_out(write: Write) -> None:
    net = build_net(python("Scale"), X, dtype=np.float32)
    net.forward()
    want = 2.5 * np.array([1, 2, 3]).reshape(1, 3, 1) * X["x"]
    assert net.blob("y").data.plain().dtype == np.float32
    np.testing.assert_allclose(net.blob("y").data.plain(), want, rtol=1e-6)


def test_reshape_runs_before_every_forward_pass(write: Write) -> None:
    net = build_net(python("Growing", ""), {}, phase=pb.TEST)
    assert net.blob("y").shape == (1, 1, 3)
    net.forward()
    assert net.blob("y").shape == (2, 1, 3)
    net.forward()
    np.testing.assert_array_equal(net.blob("y").data.plain(), np.full((3, 1, 3), 3))


def test_a_diff_that_the_layer_does_not_write_is_zero(write: Write) -> None:
    net = build_net(python("Silent"), X)
    net.blob("x").diff.plain_overwrite().fill(np.nan)
    net.forward()
    net.backward()
    assert not net.blob("x").diff.plain().any()


def test_an_exception_names_the_layer_and_keeps_its_traceback(write: Write) -> None:
    net = build_net(python("Failing"), X)
    with pytest.raises(
        RuntimeError, match=r'layer "mine" \(Python\): user_layers.Failing.forward raised ZeroDivisionError'
    ) as caught:
        net.forward()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "in deeper" in "".join(traceback.format_exception(caught.value))


def test_a_fault_that_the_layer_tells_as_the_framework_does_is_left_alone(write: Write) -> None:
    write(MODULE.replace("return 1 / 0", "raise __import__('dtrain.errors').errors.DataError('no file 7')"))
    net = build_net(python("Failing"), X)
    with pytest.raises(DataError, match=r"^no file 7$"):
        net.forward()


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (python("Scael"), r'unknown class of module user_layers "Scael"; did you mean "Scale"\?'),
        (
            python("Unfinished"),
            "layer must be a class with setup, .* got Unfinished without forward, reshape",
        ),
        (python("Foreign"), "layer must be a class derived from the caffe.Layer of dtrain, got .*Foreign"),
        (python("Scale", module="user_lairs"), 'module that Python finds, got "user_lairs"; add its folder'),
        (python(""), r"layer must be given, got none"),
    ],
)
def test_a_class_that_is_none_is_told(write: Write, net: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_net(net, X)


def test_parameters_are_added_in_setup_only(write: Write) -> None:
    net = build_net(python("Late"), X)
    with pytest.raises(ConfigError, match="add_blob must be called in setup"):
        net.forward()


def test_a_module_that_does_not_import_says_why(write: Write) -> None:
    write("import numpy\nimport surely_missing\n")
    with pytest.raises(RuntimeError, match=r"import user_layers raised ModuleNotFoundError.*surely_missing"):
        build_net(python("Scale"), X)


def test_a_caffe_that_is_imported_already_is_left_alone(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = type(sys)("caffe")
    monkeypatch.setitem(sys.modules, "caffe", other)
    python_face.provide_caffe()
    assert sys.modules["caffe"] is other


def test_a_folder_named_caffe_is_no_installed_caffe(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.joinpath("caffe").mkdir()
    python_face.provide_caffe()
    assert sys.modules["caffe"].Layer is python_face.Layer
