"""Rows for losses, scores, moving values, regions and recurrence: the last part of the operators' table."""

from __future__ import annotations

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.normalizer import Normalizer
from tests.kernels.cuda.bench import Bench, Run
from tests.kernels.cuda.pixel_rows import pixels
from tests.kernels.cuda.pooling_operators import ROWS, row

__all__ = ["ROWS"]


# -- losses and scores


def softmax(shape: tuple[int, ...], axis: int, in_place: bool) -> Run:
    def run(b: Bench) -> None:
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        operator = b.ops.Softmax(axis, x, y)
        operator.forward(x, y)
        b.told("y", y)
        operator.backward(dy, y, dx)
        b.told("dx", dx)

    return run


for shape, axis in (((5, 7), 1), ((3, 1001), 1), ((3, 5, 7), 1), ((5, 3, 2), 0), ((2, 3, 5), 2)):
    for in_place in (False, True):
        row(f"Softmax {shape} axis {axis}{' in place' if in_place else ''}", softmax(shape, axis, in_place))

SCORES = [((7, 5), 1), ((3, 5, 4, 3), 1), ((301, 10), 1)]


def labelled(op: str, shape: tuple[int, ...], axis: int, ignore: int | None, *extra: object) -> Run:
    """A loss of a softmax with a label for each position."""

    def run(b: Bench) -> None:
        channels = shape[axis]
        x, prob, dx = b.data(*shape), b.room(*shape), b.room(*shape)
        labels = b.integers(channels, *shape[:axis], *shape[axis + 1 :])
        matrix = (b.positive(channels, channels),) if op == "InfogainLoss" else ()
        loss, weight = b.room(), b.holding(0.7)
        for normalizer in (Normalizer(), Normalizer(3.5)):
            operator = getattr(b.ops, op)(*extra, normalizer)
            operator.forward(x, labels, *matrix, prob, loss)
            b.told(f"loss by {normalizer.constant}", loss)
            b.told("prob", prob)
            operator.backward(prob, labels, *matrix, weight, dx)
            b.told(f"dx by {normalizer.constant}", dx)
        b.told("dx", dx)

    return run


for shape, axis in SCORES:
    for ignore in (None, 1):
        told = f"{shape}{'' if ignore is None else ' that ignores'}"
        weights = np.linspace(0.5, 1.5, shape[axis])
        row(
            f"SoftmaxLoss {told}",
            labelled("SoftmaxLoss", shape, axis, ignore, axis, ignore, None, 0.0, shape),
        )
        row(
            f"SoftmaxLoss weighted, smoothed {told}",
            labelled("SoftmaxLoss", shape, axis, ignore, axis, ignore, weights, 0.1, shape),
        )
        row(f"InfogainLoss {told}", labelled("InfogainLoss", shape, axis, ignore, axis, ignore))
        row(f"FocalLoss {told}", labelled("FocalLoss", shape, axis, ignore, axis, 0.25, 2.0, ignore))


def accuracy(shape: tuple[int, ...], top_k: int, ignore: int | None, per_class: bool) -> Run:
    def run(b: Bench) -> None:
        x = b.holding(np.round(b.data(*shape).plain()))  # with ties
        x.plain_mutable()[0, 1] = np.nan
        labels = b.integers(shape[1], shape[0], *shape[2:])
        shares = b.room(shape[1]) if per_class else None
        share = b.room()
        operator = b.ops.Accuracy(1, top_k, ignore)
        operator.forward(x, labels, share, shares)
        right, counted = operator.counts()
        b.told("share", share)
        b.told("right", right)
        b.told("counted", counted)
        if shares is not None:
            b.told("shares", shares)

    return run


row("Accuracy", accuracy((301, 10), 1, None, True))
row("Accuracy of the top 3 that ignores", accuracy((7, 10, 3), 3, 2, True))
row("Accuracy without classes", accuracy((7, 5), 1, None, False))

BY_7 = Normalizer(7.0)


def pair_loss(op: str, args: tuple[object, ...], third: str, normalizer: Normalizer = BY_7) -> Run:
    def run(b: Bench) -> None:
        shape = (7, 5, 3)
        x = b.positive(*shape) if third == "probabilities" else b.data(*shape)
        given: list[SyncedArray | None]
        if third in ("labels", "probabilities"):
            given = [x, b.integers(15, 7)]
        elif third == "targets":
            given = [x, b.integers(2, *shape)]
        elif third == "flags":
            given = [x, b.data(*shape), b.integers(2, 7)]
        elif third == "weights":
            given = [x, b.data(*shape), b.positive(*shape), b.positive(*shape)]
        elif third == "no weights":
            given = [x, b.data(*shape), None, None]
        else:
            given = [x, b.data(*shape)]
        loss, weight = b.room(), b.holding(0.7)
        operator = getattr(b.ops, op)(*args, shape, normalizer)
        operator.forward(*given, loss)
        b.told("loss", loss)
        dx, other = b.room(*shape), b.room(*shape)
        if third in ("labels", "probabilities", "targets"):
            operator.backward(*given, weight, dx)
        else:
            operator.backward(*given, weight, dx, other)
            b.told("db", other)
        b.told("dx", dx)

    return run


row("EuclideanLoss", pair_loss("EuclideanLoss", (), ""))


def loss_of_many(b: Bench) -> None:
    """More values than the blocks that sum them have threads."""
    x, y, loss = b.data(3, 50_001), b.data(3, 50_001), b.room()
    b.ops.EuclideanLoss(x.shape, BY_7).forward(x, y, loss)
    b.told("loss", loss)


row("EuclideanLoss of many", loss_of_many)
row("HingeLoss", pair_loss("HingeLoss", (False,), "labels"))
row("HingeLoss squared", pair_loss("HingeLoss", (True,), "labels"))
row("MultinomialLogisticLoss", pair_loss("MultinomialLogisticLoss", (), "probabilities"))
row("SigmoidCrossEntropyLoss", pair_loss("SigmoidCrossEntropyLoss", (None,), "targets"))
row("SigmoidCrossEntropyLoss that ignores", pair_loss("SigmoidCrossEntropyLoss", (1,), "targets"))
row(
    "SigmoidCrossEntropyLoss by the number counted",
    pair_loss("SigmoidCrossEntropyLoss", (1,), "targets", Normalizer()),
)
row("ContrastiveLoss", pair_loss("ContrastiveLoss", (6.0, False), "flags"))
row("ContrastiveLoss legacy", pair_loss("ContrastiveLoss", (36.0, True), "flags"))
row("SmoothL1Loss", pair_loss("SmoothL1Loss", (1.2,), "no weights"))
row("SmoothL1Loss weighted", pair_loss("SmoothL1Loss", (1.2,), "weights"))


# -- images

for shape in ((5, 3, 7, 9), (2, 1, 5, 3), (3, 4, 8, 8)):
    for mean in ("channels", "image"):
        row(f"Pixels of planes {shape}, mean {mean}", pixels(shape, False, mean))
        row(f"Pixels interleaved {shape}, mean {mean}", pixels(shape, True, mean))


# -- values that move


def moved(op: str, args: tuple[object, ...], bottom: tuple[int, ...], top: tuple[int, ...]) -> Run:
    def run(b: Bench) -> None:
        x, y, dy, dx = b.data(*bottom), b.room(*top), b.data(*top), b.room(*bottom)
        operator = getattr(b.ops, op)(*args, x, y)
        operator.forward(x, y)
        operator.backward(dy, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


row("Permute", moved("Permute", ((0, 2, 3, 1),), (2, 3, 5, 7), (2, 5, 7, 3)))
row("Crop", moved("Crop", ((0, 1, 2),), (2, 5, 7), (2, 3, 4)))
row("Tile", moved("Tile", (1, 3), (2, 5, 7), (2, 15, 7)))
row("Tile of the first axis", moved("Tile", (0, 2), (3, 5), (6, 5)))
row("RepeatPixels", moved("RepeatPixels", ((3, 2),), (2, 3, 4, 5), (2, 3, 12, 10)))
row("ShuffleChannel", moved("ShuffleChannel", (3,), (2, 6, 5), (2, 6, 5)))
row("Interp up", moved("Interp", ((0, 0),), (2, 3, 4, 5), (2, 3, 9, 11)))
row("Interp down, cropped", moved("Interp", ((1, 2),), (2, 3, 9, 11), (2, 3, 4, 3)))
row("Interp of one pixel", moved("Interp", ((0, 0),), (2, 3, 1, 1), (2, 3, 3, 1)))


def arg_max(axis: int | None, top_k: int, values: bool, top: tuple[int, ...]) -> Run:
    def run(b: Bench) -> None:
        x, y = b.holding(np.round(b.data(3, 11, 5).plain() * 2)), b.room(*top)
        b.ops.ArgMax(axis, top_k, values, x, y).forward(x, y)
        b.told("y", y)

    return run


row("ArgMax of images", arg_max(None, 1, False, (3, 1, 1)))
row("ArgMax of images with values", arg_max(None, 4, True, (3, 2, 4)))
row("ArgMax of an axis", arg_max(1, 3, False, (3, 3, 5)))
row("ArgMax of an axis, values", arg_max(1, 3, True, (3, 3, 5)))
row("ArgMax of the last axis", arg_max(2, 1, False, (3, 11, 1)))


def filtered(b: Bench) -> None:
    selector, x, dx = b.holding([[1], [0], [1], [1], [0]]), b.data(5, 3), b.room(5, 3)
    operator = b.ops.Filter(selector)
    b.told("rows", operator.choose(selector))
    y, dy = b.room(3, 3), b.data(3, 3)
    operator.forward(x, y)
    operator.backward(dy, dx)
    b.told("y", y)
    b.told("dx", dx)


row("Filter", filtered)


def reindexed(b: Bench) -> None:
    x, index, y, dy, dx = b.data(5, 3), b.holding([4, 0, 4, 2]), b.room(4, 3), b.data(4, 3), b.room(5, 3)
    operator = b.ops.BatchReindex(x, index, y)
    operator.forward(x, index, y)
    operator.backward(dy, index, dx)
    b.told("y", y)
    b.told("dx", dx)


row("BatchReindex", reindexed)


def embed(b: Bench) -> None:
    indices, table, bias, y = b.integers(9, 3, 5), b.data(9, 7), b.data(7), b.room(3, 5, 7)
    dy, dw, db = b.data(3, 5, 7), b.data(9, 7), b.data(7)
    operator = b.ops.Embed(indices, table, bias, y)
    operator.forward(indices, table, bias, y)
    operator.backward(dy, indices, dw, db)
    b.told("y", y)
    b.told("dw", dw)
    b.told("db", db)


row("Embed", embed)


def unpool(b: Bench) -> None:
    x, mask, y = b.data(2, 3, 4, 5), b.integers(63, 2, 3, 4, 5), b.room(2, 3, 7, 9)
    dy, dx = b.data(2, 3, 7, 9), b.room(2, 3, 4, 5)
    operator = b.ops.Unpool(x, mask, y)
    operator.forward(x, mask, y)
    operator.backward(dy, mask, dx)
    b.told("y", y)
    b.told("dx", dx)


row("Unpool", unpool)

REGIONS = [
    [0, 0, 0, 40, 30],
    [1, 5, 3, 90, 70],
    [1, 60, 50, 61, 51],
    [0, -9, -9, -3, -3],
    [1, 0, 0, 200, 200],
]


def roi_pooling(b: Bench) -> None:
    x, regions, y = b.distinct(2, 3, 9, 11), b.holding(REGIONS), b.room(5, 3, 3, 2)
    dy, dx = b.data(5, 3, 3, 2), b.room(2, 3, 9, 11)
    operator = b.ops.ROIPooling((3, 2), 0.125, x, regions, y)
    operator.forward(x, regions, y)
    operator.backward(dy, dx)
    b.told("y", y)
    b.told("dx", dx)


def psroi_pooling(b: Bench) -> None:
    x, regions, y = b.data(2, 18, 9, 11), b.holding(REGIONS), b.room(5, 2, 3, 3)
    dy, dx = b.data(5, 2, 3, 3), b.room(2, 18, 9, 11)
    operator = b.ops.PSROIPooling(3, 0.125, x, regions, y)
    operator.forward(x, regions, y)
    operator.backward(dy, regions, dx)
    b.told("y", y)
    b.told("dx", dx)


row("ROIPooling", roi_pooling)
row("PSROIPooling", psroi_pooling)


# -- recurrence


def lstm_unit(b: Bench) -> None:
    c_prev, gates, cont = b.data(1, 3, 5), b.data(1, 3, 20), b.holding([[1, 0, 1]])
    c, h = b.room(1, 3, 5), b.room(1, 3, 5)
    operator = b.ops.LSTMUnit(c_prev, c, h)
    operator.forward(c_prev, gates, cont, c, h)
    dc, dg = b.room(1, 3, 5), b.room(1, 3, 20)
    operator.backward(b.data(1, 3, 5), b.data(1, 3, 5), c_prev, cont, c, dc, dg)
    for name, array in (("c", c), ("h", h), ("dc", dc), ("dg", dg)):
        b.told(name, array)


row("LSTMUnit", lstm_unit)


def recurrent(op: str, static: bool) -> Run:
    def run(b: Bench) -> None:
        t, n, k, d, s, o = 4, 3, 5, 7, 2, 7
        gates = d if op == "RNN" else 4 * d
        x, cont = b.data(t, n, k), b.holding([[0, 0, 0], [1, 1, 0], [1, 0, 1], [1, 1, 1]])
        given = b.data(n, s) if static else None
        w_x, bias, w_h = b.data(gates, k), b.data(gates), b.data(gates, d)
        w_static = b.data(gates, s) if static else None
        top, dy = b.room(t, n, o), b.data(t, n, o)
        out = (b.data(o, d), b.data(o)) if op == "RNN" else ()
        start = b.data(1, n, d) if op == "RNN" else (b.data(1, n, d), b.data(1, n, d))
        operator = getattr(b.ops, op)(x, top)
        operator.forward(x, cont, given, w_x, bias, w_static, w_h, *out, start, top, start)
        b.told("top", top)
        for i, array in enumerate(start if isinstance(start, tuple) else (start,)):
            b.told(f"end{i}", array)
        diffs = [b.room(t, n, k), b.room(n, s) if static else None, b.data(gates, k), b.data(gates)]
        diffs += [b.data(gates, s) if static else None, b.data(gates, d)]
        diffs += [b.data(o, d), b.data(o)] if op == "RNN" else []
        operator.backward(dy, x, cont, given, w_x, w_static, w_h, *out[:1], *diffs)
        for i, diff in enumerate(diffs):
            if diff is not None:
                b.told(f"diff{i}", diff)

    return run


for op in ("LSTM", "RNN"):
    row(op, recurrent(op, False))
    row(f"{op} with a static input", recurrent(op, True))


def weighted_sum(b: Bench) -> None:
    values, weights = [b.data(), b.data(70)], [b.data(), b.data(70)]
    total, operator = b.room(), b.ops.WeightedSum()
    operator.forward(values, weights, total, 0.5)
    b.told("total", total)
    operator.forward(values, weights, total, 0.5, add=True)
    b.told("twice", total)


row("WeightedSum", weighted_sum)
