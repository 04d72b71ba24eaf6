"""Caffe's own numbers of every layer, on a card."""

from __future__ import annotations

import pytest

from dtrain.kernels.cuda.backend import CudaBackend
from tests.kernels.cuda.conftest import MakeBackend
from tests.kernels.cuda.test_golden import NAMES, build, check
from tests.layers.golden import cases

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_gives_the_numbers_of_caffe(make_backend: MakeBackend, name: str) -> None:
    case = cases()[name]
    check(build(case, make_backend(with_cudnn=False)), case)


@pytest.mark.parametrize("channels_last", [False, True], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("name", NAMES)
def test_every_layer_by_the_fastest_engine_gives_the_numbers_of_caffe(
    backend: CudaBackend, name: str, channels_last: bool
) -> None:
    backend.card.channels_last = channels_last
    case = cases()[name]
    check(build(case, backend), case)
