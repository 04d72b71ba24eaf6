"""Every layer gives Caffe's own outputs and gradients."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from dtrain.proto import text
from tests.layers.golden import Case, cases
from tests.shared import SHARED

RTOL, ATOL = 1e-4, 1e-5

NAMES = sorted(cases()) if SHARED.is_dir() else ["none"]  # then cases() skips, or fails in CI


def build(case: Case, engine: str) -> Net:
    param = pb.NetParameter()
    text.parse(case.net, param)
    phase = pb.TRAIN if "phase: TRAIN" in case.net else pb.TEST
    net = Net(param, Scope(CpuBackend(engine=engine), phase))
    for key, value in case.of("param").items():
        net.layer("layer").blobs[int(key)].data.plain_overwrite()[...] = value
    poison(net, case)
    for name, value in case.of("in").items():
        net.blob(name).data.plain_overwrite()[...] = value
    return net


@pytest.mark.parametrize("engine", ["CAFFE", "DEFAULT"])
@pytest.mark.parametrize("name", NAMES)
def test_layer_gives_the_numbers_of_caffe(name: str, engine: str) -> None:
    case = cases()[name]
    net = build(case, engine)
    net.forward()
    for blob, expected in case.of("out").items():
        np.testing.assert_allclose(net.blob(blob).data.plain(), expected, RTOL, ATOL, err_msg=f"out {blob}")
    for key, expected in case.of("param_after").items():
        after = net.layer("layer").blobs[int(key)].data.plain()
        np.testing.assert_allclose(after, expected, RTOL, ATOL, err_msg=f"param_after {key}")
    for blob, diff in case.of("out_diff").items():
        net.blob(blob).diff.plain_overwrite()[...] = diff
    net.clear_param_diffs()
    if case.of("in_diff") or case.of("param_diff"):
        net.backward()
    for blob, expected in case.of("in_diff").items():
        np.testing.assert_allclose(
            net.blob(blob).diff.plain(), expected, RTOL, ATOL, err_msg=f"in_diff {blob}"
        )
    for key, expected in case.of("param_diff").items():
        got = net.layer("layer").blobs[int(key)].diff.plain()
        np.testing.assert_allclose(got, expected, RTOL, ATOL, err_msg=f"param_diff {key}")


def poison(net: Net, case: Case) -> None:
    """Fill what the layers must write with NaN, so that nothing left unwritten can pass."""
    for blob in net.blobs.values():
        blob.data.plain_overwrite().fill(np.nan)
    for name, expected in case.of("in_diff").items():
        if expected.any():  # a diff that nobody propagates stays zero
            net.blob(name).diff.plain_overwrite().fill(np.nan)
