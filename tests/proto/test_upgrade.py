"""Old files mean today what Caffe's own upgrade tools make of them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from google.protobuf import text_format

from dtrain.errors import ConfigError
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.proto.files import read_net, read_solver
from dtrain.proto.layer_types import V0_TYPES, V1_TYPES
from dtrain.proto.upgrade import upgrade_net, upgrade_solver
from tests.shared import shared_path


def upgraded(source: str) -> tuple[pb.NetParameter, list[str]]:
    net = pb.NetParameter()
    sources = text.parse(source, net, "net.prototxt")
    return net, upgrade_net(net, sources)


@pytest.mark.parametrize("name", ["v0_net", "v1_net", "input_fields", "input_shape"])
def test_an_old_net_becomes_what_caffe_makes_of_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    path = shared_path("golden", "upgrade", f"{name}.prototxt")
    with caplog.at_level(logging.WARNING):
        net, _ = read_net(path)
    expected = pb.NetParameter()
    text_format.Parse(path.with_name(f"{name}.upgraded.prototxt").read_text(), expected)
    assert net == expected
    assert [record.getMessage().startswith(str(path)) for record in caplog.records] == [True]


def test_an_old_solver_becomes_what_caffe_makes_of_it(caplog: pytest.LogCaptureFixture) -> None:
    path = shared_path("golden", "upgrade", "solver_enum.prototxt")
    solver, _ = read_solver(path)
    expected = pb.SolverParameter()
    text_format.Parse(path.with_name("solver_enum.upgraded.prototxt").read_text(), expected)
    assert solver == expected
    assert 'solver_type: ADAGRAD is now type: "AdaGrad"' in caplog.text


def test_todays_files_are_left_alone_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    for path in shared_path("golden", "upgrade").glob("*.upgraded.prototxt"):
        if "solver" in path.name or "input_fields" in path.name:
            continue
        net, _ = read_net(path)
        assert net == text_format.Parse(path.read_text(), pb.NetParameter())
    assert caplog.records == []


def test_the_source_map_follows_layers_that_move() -> None:
    net = pb.NetParameter()
    source = (
        'input: "d" input_dim: 1 input_dim: 2 input_dim: 3 input_dim: 4\n'
        'layers { layer { name: "pad" type: "padding" pad: 1 } bottom: "d" top: "p" }\n'
        'layers { layer { name: "c" type: "conv" kernelsize: 3 num_output: 1 } bottom: "p" top: "c" }\n'
        'layers { layer { name: "r" type: "relu" } bottom: "c" top: "c" }\n'
    )
    sources = text.parse(source, net, "n")
    upgrade_net(net, sources)
    assert [layer.name for layer in net.layer] == ["input", "c", "r"]
    assert [sources.where(("layer", i)) for i in range(3)] == ["n:1", "n:3", "n:4"]
    assert list(net.layer[1].convolution_param.pad) == [1]
    assert list(net.layer[1].bottom) == ["d"]


def test_every_type_of_2014_and_2013_has_its_name_of_today() -> None:
    assert set(V1_TYPES) == set(pb.V1LayerParameter.LayerType.keys())
    assert set(V0_TYPES.values()) <= set(V1_TYPES)
    for old, new in V1_TYPES.items():
        assert upgraded(f'layers {{ name: "x" type: {old} }}')[0].layer[0].type == new


def test_fields_of_2013_that_their_type_does_not_have_are_reported() -> None:
    _, done = upgraded('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    assert 'layer "r": num_output means nothing to type "relu", dropped' in done


def test_transform_fields_in_a_layer_block_are_ignored_as_in_caffe_and_reported() -> None:
    net, done = upgraded('layer { name: "d" type: "Data" data_param { mirror: true crop_size: 3 } }')
    assert not net.layer[0].HasField("transform_param")
    assert done == ['layer "d": data_param crop_size, mirror has no effect, write it in transform_param']


def test_nets_within_a_solver_are_upgraded_too() -> None:
    solver = pb.SolverParameter()
    source = 'train_net_param { layers { name: "a" type: RELU } } test_net_param { layers { type: TANH } }'
    sources = text.parse(source, solver, "s")
    done = upgrade_solver(solver, sources)
    assert solver.train_net_param.layer[0].type == "ReLU"
    assert solver.test_net_param[0].layer[0].type == "TanH"
    assert sources.where(("test_net_param", 0, "layer", 0)) == "s:1"
    assert len(done) == 2


def test_input_names_without_shapes_are_dropped_as_old_caffemodels_have_them() -> None:
    net, done = upgraded('input: "data" layer { name: "r" type: "ReLU" }')
    assert [layer.name for layer in net.layer] == ["r"]
    assert not net.input
    assert done == ["input names without shapes were dropped: data"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ('layer { name: "a" }\nlayers { name: "b" }', r'net\.prototxt:2: .*"layer" or "layers".*got both'),
        ('input: "a" input_dim: 1 input_dim: 2', r"net\.prototxt:1: input_dim .*\(4 times\), got 2"),
        ('input: "a" input_shape { dim: 1 } input_shape { dim: 2 }', r"each of 1 inputs, got 2"),
        ('input: "a" input_shape { dim: 1 } input_dim: 1', r"either input_shape or input_dim, got both"),
        ('layers { layer { name: "x" type: "convv" } }', r'unknown layer type "convv"; did you mean "conv"'),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } bottom: "d" top: "p" }\n'
            'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }',
            r'net\.prototxt:2: layer "r" \(relu\): a padding layer must feed a conv or pool layer',
        ),
        (
            'layers { layer { name: "p" type: "padding" pad: 1 } top: "p" }\n'
            'layers { layer { name: "c" type: "conv" } bottom: "p" top: "c" }',
            r'padding layer "p" must have one bottom and one top, got 0 and 1',
        ),
    ],
)
def test_an_old_net_that_means_nothing_is_refused(source: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        upgraded(source)


def test_a_solver_with_both_spellings_of_its_type_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "solver.prototxt"
    path.write_text('type: "Adam"\nsolver_type: ADAM\n')
    with pytest.raises(ConfigError, match=r"solver\.prototxt:2: solver_type must not stand beside type"):
        read_solver(path)
