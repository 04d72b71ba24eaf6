"""Every layer on the CUDA backend gives Caffe's own outputs and gradients, its kernels run by the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.kernels.cuda.cpu_device import CpuDevice
from tests.layers.golden import Case, cases
from tests.shared import SHARED

RTOL, ATOL = 1e-4, 1e-5

NAMES = sorted(cases()) if SHARED.is_dir() else ["none"]  # then cases() skips, or fails in CI


def build(case: Case, backend: CudaBackend) -> Net:
    param = pb.NetParameter()
    text.parse(case.net, param)
    net = Net(param, Scope(backend, pb.TRAIN if "phase: TRAIN" in case.net else pb.TEST))
    for key, value in case.of("param").items():
        net.layer("layer").blobs[int(key)].data.plain_overwrite()[...] = value
    for name, value in case.of("in").items():
        net.blob(name).data.plain_overwrite()[...] = value
    return net


def check(net: Net, case: Case) -> None:
    """Forward and backward against the case's arrays."""
    layer = net.layer("layer")
    net.forward()
    for name, expected in case.of("out").items():
        np.testing.assert_allclose(net.blob(name).data.plain(), expected, RTOL, ATOL, err_msg=f"out {name}")
    for key, expected in case.of("param_after").items():
        after = layer.blobs[int(key)].data.plain()
        np.testing.assert_allclose(after, expected, RTOL, ATOL, err_msg=f"param_after {key}")
    for name, diff in case.of("out_diff").items():
        net.blob(name).diff.plain_overwrite()[...] = diff
    net.clear_param_diffs()
    if case.of("in_diff") or case.of("param_diff"):
        net.backward()
    for name, expected in case.of("in_diff").items():
        got = net.blob(name).diff.plain()
        np.testing.assert_allclose(got, expected, RTOL, ATOL, err_msg=f"in_diff {name}")
    for key, expected in case.of("param_diff").items():
        got = layer.blobs[int(key)].diff.plain()
        np.testing.assert_allclose(got, expected, RTOL, ATOL, err_msg=f"param_diff {key}")


@pytest.mark.parametrize("descending", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("name", NAMES)
def test_layer_gives_the_numbers_of_caffe(name: str, descending: bool) -> None:
    case = cases()[name]
    check(build(case, CudaBackend(CpuDevice(descending=descending))), case)
