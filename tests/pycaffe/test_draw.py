"""caffe.draw: nets as graphs."""

from __future__ import annotations

import importlib.util
import shutil
import stat
from pathlib import Path

import pytest

from dtrain import pycaffe as caffe
from dtrain.errors import BackendError, ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net
from tests.pycaffe.nets import IMAGES, TRAINED, write_net

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*/*train*.prototxt"))


@pytest.fixture
def images(tmp_path: Path) -> pb.NetParameter:
    return read_net(write_net(tmp_path, IMAGES))[0]


def test_the_graph_has_a_node_a_layer_and_a_blob(images: pb.NetParameter) -> None:
    lines = caffe.draw.draw_net(images, "LR", "dot").decode().splitlines()
    assert lines[:2] == ['digraph "images" {', "  rankdir=LR;"]
    (conv,) = (line for line in lines if line.startswith('  "conv1_Convolution" ['))
    assert '"conv1\\n(Convolution)\\nkernel size: 3\\nstride: 1\\npad: 0"' in conv
    assert 'fillcolor="#FF5050"' in conv
    (relu,) = (line for line in lines if line.startswith('  "relu1_ReLU" ['))
    assert 'fillcolor="#90EE90"' in relu
    assert '  "pool1_blob" [label="pool1", shape=octagon, style=filled, fillcolor="#E0E0E0"];' in lines
    assert '  "conv1_Convolution" -> "conv1_blob" [label="16"];' in lines
    assert '  "data_blob" -> "conv1_Convolution";' in lines
    assert sum(" -> " in line for line in lines) == 13


def test_a_phase_leaves_out_layers_of_the_other(tmp_path: Path) -> None:
    net = read_net(write_net(tmp_path, TRAINED))[0]
    texts = {phase: caffe.draw.net_to_dot(net, phase=phase) for phase in (None, caffe.TRAIN, caffe.TEST)}
    assert {phase: "Accuracy" in text for phase, text in texts.items()} == {None: True, 0: False, 1: True}


def test_labels_tell_multipliers_and_escape_what_records_mean() -> None:
    layer = pb.LayerParameter(name='a"|b', type="InnerProduct", top=["y"], param=[pb.ParamSpec(lr_mult=0.5)])
    assert caffe.draw.get_layer_label(layer, "TB", True) == 'a"|b (InnerProduct) lr mult: 0.5, 1.0'
    assert 'label="a\\"\\|b\\n(InnerProduct)"' in caffe.draw.net_to_dot(pb.NetParameter(layer=[layer]))
    assert caffe.draw.get_edge_label(layer) == "0"
    with pytest.raises(ConfigError, match=r"type must be one of Convolution, .* got ReLU"):
        caffe.draw.get_layer_lr_mult(pb.LayerParameter(name="r", type="ReLU"))
    with pytest.raises(ConfigError, match="rankdir must be one of LR, TB, BT, RL, got XY"):
        caffe.draw.net_to_dot(pb.NetParameter(), "XY")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.parent.name)
def test_every_net_of_the_configs_is_drawn(path: Path, tmp_path: Path) -> None:
    net = read_net(path)[0]
    target = tmp_path / "net.dot"
    caffe.draw.draw_net_to_file(net, str(target), "TB", caffe.TRAIN, True)
    text = target.read_text()
    assert text.count("shape=record") >= 3
    assert text.endswith("}\n")


def test_a_picture_is_made_by_graphviz(
    images: pb.NetParameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "dot"
    program.write_text(
        '#!/bin/sh\nif [ "$1" = -Tsvg ]; then echo "<svg>"; /usr/bin/wc -l; exit; fi\n'
        'echo "bad format" >&2; exit 1\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("dot") == str(program)
    assert caffe.draw.draw_net(images, "LR", "svg").startswith(b"<svg>")
    with pytest.raises(BackendError, match="must know the type tiff, got: bad format"):
        caffe.draw.draw_net(images, "LR", "tiff")


def test_without_graphviz_or_pydot_the_error_says_what_to_do(
    images: pb.NetParameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendError, match=r"Graphviz must be installed .* ends in \.dot"):
        caffe.draw.draw_net(images, "LR")
    if importlib.util.find_spec("pydot") is None:
        with pytest.raises(BackendError, match="pip install pydot"):
            caffe.draw.get_pydot_graph(images, "LR")
    else:
        assert caffe.draw.get_pydot_graph(images, "LR").get_edges()
