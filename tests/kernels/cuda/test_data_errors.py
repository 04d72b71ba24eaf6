"""Labels and indices that are wrong are told in the CPU's words, found by a kernel or by the host."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dtrain.errors import DataError
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.backend import CpuBackend
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.normalizer import Normalizer
from tests.kernels.cuda.bench import Bench
from tests.kernels.cuda.cpu_device import CpuDevice


def softmax_loss(b: Bench) -> None:
    op = b.ops.SoftmaxLoss(1, None, None, 0.0, (3, 5, 2), Normalizer())
    op.forward(b.data(3, 5, 2), b.holding([[0, 1], [2, 3], [4, 5]]), b.room(3, 5, 2), b.room())


def softmax_loss_that_ignores(b: Bench) -> None:
    op = b.ops.SoftmaxLoss(1, 255, None, 0.0, (3, 5), Normalizer())
    op.forward(b.data(3, 5), b.holding([255, -1, 4]), b.room(3, 5), b.room())


def label_that_is_no_number(b: Bench) -> None:
    op = b.ops.SoftmaxLoss(1, None, None, 0.0, (2, 5), Normalizer())
    op.forward(b.data(2, 5), b.holding([1, np.nan]), b.room(2, 5), b.room())


def infogain_loss(b: Bench) -> None:
    op = b.ops.InfogainLoss(1, None, Normalizer())
    op.forward(b.data(2, 3), b.holding([1, 3]), b.positive(3, 3), b.room(2, 3), b.room())


def focal_loss(b: Bench) -> None:
    op = b.ops.FocalLoss(1, 0.25, 2.0, None, Normalizer())
    op.forward(b.data(2, 3), b.holding([-1, 2]), b.room(2, 3), b.room())


def accuracy(b: Bench) -> None:
    b.ops.Accuracy(1, 1, 7).forward(b.data(3, 5), b.holding([7, 1, 6]), b.room(), None)


def hinge_loss(b: Bench) -> None:
    op = b.ops.HingeLoss(False, (3, 5), Normalizer(3.0))
    op.forward(b.data(3, 5), b.holding([0, 5, 1]), b.room())


def multinomial_logistic_loss(b: Bench) -> None:
    op = b.ops.MultinomialLogisticLoss((3, 5), Normalizer(3.0))
    op.forward(b.positive(3, 5), b.holding([0, 1, -2]), b.room())


def embed(b: Bench) -> None:
    b.ops.Embed(b.room(3), b.data(4, 2), None, b.room(3, 2)).forward(
        b.holding([0, 1.5, 2]), b.data(4, 2), None, b.room(3, 2)
    )


def batch_reindex(b: Bench) -> None:
    x, index, y = b.data(3, 2), b.holding([0, 3]), b.room(2, 2)
    b.ops.BatchReindex(x, index, y).forward(x, index, y)


def unpool(b: Bench) -> None:
    x, mask, y = b.data(1, 1, 2, 2), b.holding([[[[0, 1], [2, 20]]]]), b.room(1, 1, 4, 5)
    b.ops.Unpool(x, mask, y).forward(x, mask, y)


def roi_pooling(b: Bench) -> None:
    x, regions, y = b.data(2, 1, 4, 4), b.holding([[0, 0, 0, 3, 3], [2, 0, 0, 3, 3]]), b.room(2, 1, 2, 2)
    b.ops.ROIPooling((2, 2), 1.0, x, regions, y).forward(x, regions, y)


WRONG = [
    softmax_loss,
    softmax_loss_that_ignores,
    label_that_is_no_number,
    infogain_loss,
    focal_loss,
    accuracy,
    hinge_loss,
    multinomial_logistic_loss,
    embed,
    batch_reindex,
    unpool,
    roi_pooling,
]


def message(run: Callable[[Bench], None], backend: Backend) -> str:
    with pytest.raises(DataError) as caught:
        run(Bench(backend))
    return str(caught.value)


@pytest.mark.parametrize("run", WRONG, ids=lambda run: run.__name__)
def test_a_wrong_number_is_told_in_the_cpus_words(run: Callable[[Bench], None]) -> None:
    expected = message(run, CpuBackend(engine="CAFFE"))
    assert message(run, CudaBackend(CpuDevice())) == expected
    assert message(run, CudaBackend(CpuDevice(descending=True))) == expected
