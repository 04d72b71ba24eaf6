"""cuDNN's own answers: what tests/kernels/cuda/test_cudnn*.py check on a stand-in, on a card."""

from __future__ import annotations

import numpy as np
import pytest

from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.cupy_device import CupyDevice
from dtrain.layers.layer import Scope
from dtrain.net import Net
from dtrain.proto import dtrain_pb2 as pb
from tests.gpu.tolerances import BY_CUDNN
from tests.kernels.cuda.more_operators import ROWS
from tests.kernels.cuda.test_cudnn import BY_CUDNN as ROWS_OF_CUDNN
from tests.kernels.cuda.test_cudnn import OTHER_AXES, compare, passes_on
from tests.kernels.cuda.test_cudnn_nets import passed, residual

pytestmark = pytest.mark.gpu

NAMES = [name for name in ROWS_OF_CUDNN if not name.endswith(OTHER_AXES)]


@pytest.fixture
def card(device: CupyDevice) -> CupyDevice:
    """The first card, where cuDNN is usable."""
    cudnn = CudaBackend(device).cudnn
    if cudnn.module is None:
        pytest.skip(cudnn.missing)
    return device


def backend_on(card: CupyDevice, precision: str, channels_last: bool) -> CudaBackend:
    backend = CudaBackend(card, precision=precision)
    backend.card.channels_last = channels_last
    return backend


# Plans of 16 bits are compiled as they are built: they are timed in the order that a plan takes alone.
@pytest.mark.parametrize(("channels_last", "autotune"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("precision", BY_CUDNN)
@pytest.mark.parametrize("name", NAMES)
def test_cudnn_gives_what_the_cpu_gives(
    card: CupyDevice, name: str, precision: str, channels_last: bool, autotune: bool
) -> None:
    backend = backend_on(card, precision, channels_last)
    backend.cudnn.autotune = autotune
    compare(ROWS[name], backend, "DEFAULT", *BY_CUDNN[precision], backend.form.type)
    card.synchronize()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("precision", BY_CUDNN)
def test_a_captured_convolution_is_replayed(card: CupyDevice, precision: str, channels_last: bool) -> None:
    backend = backend_on(card, precision, channels_last)
    replayer = backend.replayer()
    run, results, x = passes_on(backend)
    for number in range(5):
        x.plain_overwrite()[...] = np.random.default_rng(number).standard_normal(x.shape)
        replayer.run(("pass",), run, lambda: None)
        got = results()
        run()
        for mine, again in zip(got, results(), strict=True):
            np.testing.assert_array_equal(mine, again)
    assert replayer.num_graphs == 1


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_net_has_the_gradients_of_the_cpu(card: CupyDevice, channels_last: bool) -> None:
    mine, loss = passed(residual(), backend_on(card, "fp32", channels_last), None)
    cpu, expected = passed(residual(), CpuBackend(engine="CAFFE"), None)
    assert loss == pytest.approx(expected, rel=1e-4)
    for a, b in zip(mine.params.owned, cpu.params.owned, strict=True):
        exact = b.blob.diff.plain()
        assert np.linalg.norm(a.blob.diff.plain() - exact) <= 1e-3 * np.linalg.norm(exact) + 1e-5


@pytest.mark.parametrize("precision", BY_CUDNN)
def test_passes_repeat_bit_for_bit(card: CupyDevice, precision: str) -> None:
    net = Net(residual(), Scope(backend_on(card, precision, True), pb.TRAIN, rng=np.random.default_rng(1)))
    net.blob("data").data.plain_overwrite()[...] = np.random.default_rng(2).random((5, 3, 12, 10))
    net.blob("label").data.plain_overwrite()[...] = 3
    found = []
    for _ in range(3):
        net.clear_param_diffs()
        net.forward()
        net.backward()
        found.append([param.blob.diff.plain().copy() for param in net.params.owned])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)
