"""Every test starts from the same random numbers, and leaves no module named caffe behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from dtrain import pycaffe as caffe
from dtrain.pycaffe import caffe_name


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] == "caffe"]:
            del sys.modules[name]

    forget()
    caffe_name.provide()
    caffe.set_random_seed(1)
    yield
    forget()
