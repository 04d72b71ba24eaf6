"""From a solver file to its nets, by Caffe's rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.comm.single import SingleCommunicator
from dtrain.errors import ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from dtrain.solvers import nets
from dtrain.solvers.loop import Solver
from dtrain.solvers.nets import build_test_nets, build_train_net, seed_of
from dtrain.solvers.settings import Settings

NET = """name: "%s"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "only" type: "ReLU" bottom: "ip" top: "only" include { phase: TEST stage: "deep" } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "loss" }
"""
INLINE = NET.replace("\n", " ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.prototxt").write_text(NET % name)
    return tmp_path


def parsed(content: str, folder: Path) -> Settings:
    param = pb.SolverParameter()
    source = text.parse(content, param, str(folder / "solver.prototxt"))
    return Settings(param, source)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ('net: "a.prototxt"', "a"),
        ('train_net: "b.prototxt"', "b"),
        (f"net_param {{ {INLINE % 'x'} }}", "x"),
        (f"train_net_param {{ {INLINE % 'y'} }}", "y"),
    ],
)
def test_train_net_is_read_from_each_of_four_fields(folder: Path, content: str, name: str) -> None:
    spec = nets.train_spec(parsed(content, folder))
    assert spec.param.name == name
    assert spec.param.state.phase == pb.TRAIN


@pytest.mark.parametrize(
    ("content", "got"),
    [("base_lr: 1", "none"), ('base_lr: 1\nnet: "a.prototxt"\ntrain_net: "b.prototxt"', "")],
)
def test_exactly_one_train_net_must_be_given(folder: Path, content: str, got: str) -> None:
    with pytest.raises(ConfigError, match=rf"solver\.prototxt.*exactly one of .* got .*{got}"):
        nets.train_spec(parsed(content, folder))


def test_test_nets_come_as_messages_then_files_then_the_common_net(folder: Path) -> None:
    settings = parsed(
        f"""net: "a.prototxt" test_net: "b.prototxt" test_net_param {{ {INLINE % "x"} }}
        test_iter: 1 test_iter: 2 test_iter: 3 test_iter: 4 test_interval: 5
        test_state {{ }} test_state {{ level: 2 }} test_state {{ stage: "deep" }} test_state {{ }}""",
        folder,
    )
    specs = nets.test_specs(settings)
    assert [spec.param.name for spec in specs] == ["x", "b", "a", "a"]
    assert [spec.param.state.level for spec in specs] == [0, 2, 0, 0]
    assert [list(spec.param.state.stage) for spec in specs] == [[], [], ["deep"], []]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            'train_net: "a.prototxt" test_net: "b.prototxt" test_iter: 1 test_iter: 1',
            r"test_iter must be given once per test net",
        ),
        ('train_net: "a.prototxt" test_iter: 1', r"test_iter must be given once per test net \(0 times\)"),
        (
            'net: "a.prototxt" test_iter: 1 test_interval: -1',
            "test_interval must be at least 1 where test_iter is given, got -1",
        ),
        ('net: "a.prototxt" test_iter: 0 test_interval: 1', "test_iter must be at least 1, got 0"),
        (
            'net: "a.prototxt" test_iter: 1 test_interval: 1 test_state { } test_state { }',
            r"test_state must be given once per test net \(1 times\) or not at all, got 2 times",
        ),
        ('net: "absent.prototxt"', "net must be an existing file, got absent.prototxt"),
    ],
)
def test_rules_about_nets_are_told_with_file_and_line(folder: Path, content: str, message: str) -> None:
    settings = parsed(content, folder)
    find = nets.train_spec if "absent" in content else nets.test_specs
    with pytest.raises(ConfigError, match=rf"solver\.prototxt:1: {message}"):
        find(settings)


def test_fault_inside_an_inline_net_names_its_own_line(folder: Path) -> None:
    content = 'base_lr: 1\nnet_param {\n  layer { name: "x" type: "Inptu" top: "x" }\n}'
    with pytest.raises(ConfigError, match=r'solver\.prototxt:3: layer "x": unknown layer type "Inptu"'):
        build_train_net(parsed(content, folder), CpuBackend(), SingleCommunicator(), 1)


def test_test_nets_have_their_stage_and_the_weights_of_the_training_net(folder: Path) -> None:
    content = """net: "a.prototxt" test_iter: 3 test_iter: 4 test_interval: 1 base_lr: 1 lr_policy: "fixed"
        test_state { stage: "deep" } test_state { }"""
    settings = parsed(content, folder)
    comm, backend = SingleCommunicator(), CpuBackend()
    net = build_train_net(settings, backend, comm, 1)
    tests = build_test_nets(settings, backend, comm, 1, net)
    assert [test.scope.test_iter for test in tests] == [3, 4]
    assert ["only" in {layer.name for layer in test.layers} for test in tests] == [True, False]
    weight = net.layer("ip").blobs[0]
    weight.data.plain_overwrite()[...] = 7
    assert (tests[1].layer("ip").blobs[0].data.plain() == 7).all()
    Solver(settings.param, net, tests, comm, source=settings.source)


def test_seed_is_the_given_one_or_drawn(folder: Path) -> None:
    comm = SingleCommunicator()
    assert seed_of(parsed("random_seed: 7", folder), comm) == 7
    assert seed_of(parsed("", folder), comm) != seed_of(parsed("", folder), comm)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("iter_size: 0", "iter_size must be at least 1, got 0"),
        ("average_loss: 0", "average_loss must be at least 1, got 0"),
        ("larc: true", r"larc must be False \(nothing else is supported\), got True"),
        ('regularization_type: "L3"', 'unknown regularization_type "L3"'),
    ],
)
def test_settings_that_no_training_can_have_are_refused(folder: Path, content: str, message: str) -> None:
    settings = parsed(f'net: "a.prototxt" base_lr: 1 lr_policy: "fixed" {content}', folder)
    net = build_train_net(settings, CpuBackend(), SingleCommunicator(), 1)
    with pytest.raises(ConfigError, match=message):
        Solver(settings.param, net, source=settings.source)
