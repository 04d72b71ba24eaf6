"""Whole nets with Caffe's own activations, on a card."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.plan import Plan
from tests.kernels.cuda.conftest import MakeBackend
from tests.test_nets import ATOL, NAMES, RTOL, assert_matches, build, golden_nets

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", ["direct kernels", "cuDNN", "planned blocked", "planned channels_last"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * ("bvlc" in n)) for n in NAMES])
def test_a_net_gives_the_numbers_of_caffe(make_backend: MakeBackend, name: str, variant: str) -> None:
    golden = golden_nets()[name]
    backend = make_backend(with_cudnn=variant != "direct kernels")
    if not variant.startswith("planned"):
        net = build(name, backend)
        for _ in range(2):  # the second pass reads what the first one left in forms
            net.forward()
        assert_matches(net, golden)
        return
    backend.memory_format = variant.split()[1]  # for training a plan does so
    net = build(name, backend, Plan())
    for _ in range(2):
        net.forward()
    for blob, expected in golden.of("out").items():  # the memory of others is used again
        np.testing.assert_allclose(net.blob(blob).data.plain(), expected, RTOL, ATOL, err_msg=blob)
