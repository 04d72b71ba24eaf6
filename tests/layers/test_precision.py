"""The precision of a layer: its own fields, then the builder's wish, then the net's default."""

from __future__ import annotations

import logging

import pytest

from dtrain.errors import ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.kernels.cuda.cpu_device import CpuDevice

NET = """
name: "small"
%s
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "relu" type: "ReLU" bottom: "x" top: "y" %s }
"""


def build(net: str = "", layer: str = "", *, wish: str = "", backend: CudaBackend | None = None) -> str:
    """The precision that the ReLU layer got."""
    param = pb.NetParameter()
    text.parse(NET % (net, layer), param)
    scope = Scope(backend or CudaBackend(CpuDevice()), pb.TRAIN, precision=wish)
    return Net(param, scope).layer("relu").precision


def test_a_net_that_says_nothing_leaves_it_to_the_backend() -> None:
    assert build() == ""


def test_the_nets_default_is_for_all_layers() -> None:
    assert build("default_forward_type: FLOAT16 default_backward_type: FLOAT16") == "fp16"
    assert build("default_forward_type: BFLOAT16 default_backward_type: BFLOAT16") == "bf16"


def test_types_that_differ_both_ways_run_in_float32() -> None:
    assert build("default_forward_type: FLOAT16") == "fp32"


def test_a_layers_own_types_win_over_the_net_and_the_wish() -> None:
    default = "default_forward_type: FLOAT16 default_backward_type: FLOAT16"
    assert build(default, "forward_type: FLOAT backward_type: FLOAT", wish="bf16") == "fp32"
    assert build(default, "forward_type: BFLOAT16") == "bf16"


def test_the_wish_wins_over_the_net() -> None:
    assert build("default_forward_type: FLOAT16 default_backward_type: FLOAT16", wish="tf32") == "tf32"


def test_a_type_that_is_none_of_these_is_refused() -> None:
    with pytest.raises(ConfigError, match="forward_type must be one of FLOAT, FLOAT16, BFLOAT16, got INT"):
        build(layer="forward_type: INT")


def test_a_device_without_that_precision_says_so_and_computes_in_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    param = pb.NetParameter()
    text.parse(NET % ("default_forward_type: FLOAT16 default_backward_type: FLOAT16", ""), param)
    with caplog.at_level(logging.WARNING):
        net = Net(param, Scope(CpuBackend(), pb.TRAIN))
    assert net.layer("relu").precision == ""
    assert [r.message for r in caplog.records] == ["net: small asks for fp16, this device computes in fp32"]
