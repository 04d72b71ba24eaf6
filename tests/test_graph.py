"""What the graph says of a net that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from dtrain.errors import ConfigError
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto.files import read_net

NET = """layer { name: "in" type: "Input" top: "in" input_param { shape { dim: 2 } } }

layer { name: "twice" type: "ReLU" bottom: "in" top: "out"
  include { phase: TRAIN } exclude { phase: TEST } }
"""


@pytest.mark.parametrize("phase", [pb.TRAIN, pb.TEST])
def test_a_layer_with_include_and_exclude_is_named_with_its_line(tmp_path: Path, phase: int) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    param, source = read_net(path)
    with pytest.raises(ConfigError) as caught:
        Net(param, Scope(CpuBackend(), phase), source=source)
    assert str(caught.value) == (
        f'{path}:3: layer "twice" (ReLU): at most one of include and exclude must be given, got both'
    )
