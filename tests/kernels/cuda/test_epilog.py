"""Bias and ReLU behind a product, by the kernel that serves where a library has no epilog."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cuda.device import Product
from dtrain.kernels.cuda.epilog import Epilog
from dtrain.kernels.cuda.form import ValueType, to_floats
from tests.kernels.cuda.cpu_device import CpuDevice, from_floats, guarded


def check(device: CpuDevice, kind: ValueType, *, has_bias: bool = True, relu: bool = True) -> None:
    """Of a batch of two, with a gap between the matrices that stays as it is."""
    rng = np.random.default_rng(3)
    product = Product(3, 5, 1, batch=2, stride_c=17, output=kind, relu=relu)
    sides = []
    for count in (2 * 17, 5):
        buffer = guarded(count, kind.storage)
        buffer[...] = from_floats(rng.standard_normal(count).astype(np.float32), kind)
        sides.append(buffer)
    c, bias = sides
    before, added = to_floats(c, kind).copy(), to_floats(bias, kind)
    Epilog(device).run(product, c, bias if has_bias else None)
    expected = before.copy()
    for start in (0, 17):
        part = expected[start : start + 15].reshape(3, 5)
        part += added if has_bias else 0
        part[...] = to_floats(from_floats(np.maximum(part, 0) if relu else part, kind), kind)
    np.testing.assert_array_equal(to_floats(c, kind), expected)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize(("has_bias", "relu"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("kind", ValueType)
def test_bias_and_relu_follow_a_product(
    kind: ValueType, has_bias: bool, relu: bool, descending: bool
) -> None:
    check(CpuDevice(descending=descending), kind, has_bias=has_bias, relu=relu)
