"""One row an operator and way of using it; sizes are odd, so that no block or warp is full.

This part: functions of values, several arrays, convolution and inner products.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from dtrain.kernels.window import ConvolutionWindow
from tests.kernels.cuda.bench import Bench, Run

ROWS: dict[str, Run] = {}


def row(name: str, run: Run) -> None:
    assert name not in ROWS
    ROWS[name] = run


# -- functions of one value


def neuron(op: str, args: Sequence[float], shape: tuple[int, ...], in_place: bool, positive: bool) -> Run:
    def run(b: Bench) -> None:
        x = b.positive(*shape) if positive else b.data(*shape)
        dy = b.data(*shape)
        y = x if in_place else b.room(*shape)
        dx = dy if in_place else b.room(*shape)
        operator = getattr(b.ops, op)(*args, x, y)
        operator.forward(x, y)
        b.told("y", y)
        if op == "Threshold":
            return
        if op == "ReLU":
            operator.backward(dy, x, dx)
        else:
            operator.backward(dy, x, y, dx)
        b.told("dx", dx)

    return run


NEURONS: list[tuple[str, tuple[float, ...], bool]] = [
    ("ReLU", (0.0,), False),
    ("ReLU", (0.1,), False),
    ("ReLU6", (), False),
    ("ELU", (0.7, 1.3), False),
    ("Sigmoid", (), False),
    ("TanH", (), False),
    ("Swish", (1.5,), False),
    ("BNLL", (), False),
    ("AbsVal", (), False),
    ("Exp", (0.7, 1.2), False),
    ("Log", (1.2, 0.7, 0.3), True),
    ("Power", (2.5, 0.7, 0.3), True),
    ("Power", (1.0, 0.7, 0.3), False),
    ("Power", (0.0, 0.7, 0.3), True),
    ("Power", (2.0, 0.7, 0.3), False),
    ("Clip", (-0.5, 0.8), False),
    ("Threshold", (0.3,), False),
]
for op, args, is_positive in NEURONS:
    for in_place in (False, True):
        name = f"{op}{list(args)}{' in place' if in_place else ''}"
        row(name, neuron(op, args, (3, 5, 7, 11), in_place, is_positive))
row("Sigmoid of one value", neuron("Sigmoid", (), (1,), False, False))
row("ReLU beyond the largest grid", neuron("ReLU", (0.0,), (4096 * 256 + 3,), False, False))


def dropout(shape: tuple[int, ...], ratio: float, in_place: bool) -> Run:
    def run(b: Bench) -> None:
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        operator = b.ops.Dropout(ratio, 1, 3, x, y)
        operator.draw(0xFEDCBA9876543210)
        operator.forward(x, y)
        operator.backward(dy, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


row("Dropout", dropout((5, 7, 11), 0.4, False))
row("Dropout in place", dropout((6, 4), 0.5, True))
row("Dropout of one row", dropout((1, 3001), 0.9, False))
row("Dropout that copies", dropout((5, 7), 0.0, False))


# -- several arrays


def eltwise(op: str, args: tuple[object, ...], count: int) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 7)
        xs = [b.holding(np.round(b.data(*shape).plain() * 2)) for _ in range(count)]  # with ties
        dy, y, dxs = b.data(*shape), b.room(*shape), [b.room(*shape) for _ in xs]
        operator = getattr(b.ops, op)(*args, xs, y)
        operator.forward(xs, y)
        b.told("y", y)
        if op == "Sum":
            return
        operator.backward(dy, xs, y, dxs)
        for i, dx in enumerate(dxs):
            b.told(f"dx{i}", dx)

    return run


for count in (1, 2, 3, 4):
    row(f"Sum of {count}", eltwise("Sum", ([0.5, -2.0, 1.0, 3.0][:count],), count))
for count in (2, 3):
    row(f"Maximum of {count}", eltwise("Maximum", (), count))
    row(f"Product of {count}", eltwise("Product", (True,), count))
    row(f"Product of {count}, by division", eltwise("Product", (False,), count))


def sum_in_place(b: Bench) -> None:
    x, other = b.data(3, 5), b.data(3, 5)
    operator = b.ops.Sum([2.0, 3.0], [x, other], x)
    operator.forward([x, other], x)
    b.told("y", x)


row("Sum in place", sum_in_place)


def concat(b: Bench, axis: int, extents: Sequence[int]) -> None:
    shapes = [(*(3, *([5] * axis))[:axis], extent, 3) for extent in extents]
    xs = [b.data(*shape) for shape in shapes]
    whole = (*shapes[0][:axis], sum(extents), 3)
    y, dy = b.room(*whole), b.data(*whole)
    dxs = [b.room(*shape) if i != 1 else None for i, shape in enumerate(shapes)]
    operator = b.ops.Concat(axis, xs, y)
    operator.forward(xs, y)
    operator.backward(dy, dxs)
    b.told("y", y)
    for i, dx in enumerate(dxs):
        if dx is not None:
            b.told(f"dx{i}", dx)
    tops, back = [b.room(*shape) for shape in shapes], b.room(*whole)
    slices = b.ops.Slice(axis, y, tops)
    slices.forward(y, tops)
    slices.backward(xs, back)
    for i, top in enumerate(tops):
        b.told(f"slice{i}", top)
    b.told("back", back)


for axis in (0, 1, 2):
    row(f"Concat and Slice at axis {axis}", lambda b, axis=axis: concat(b, axis, (1, 4, 2)))  # type: ignore[misc]


# -- convolution and its kin


def convolution(
    op: str,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    *,
    group: int = 1,
    images: int = 3,
    channels: tuple[int, int] = (4, 6),
    extent: tuple[int, ...] = (9, 8),
    bias: bool = True,
    relu: bool = False,
) -> Run:
    def run(b: Bench) -> None:
        window = ConvolutionWindow(kernel=kernel, stride=stride, pad=pad, dilation=dilation, group=group)
        c, o = channels
        out = window.convolved(extent) if op == "Convolution" else window.deconvolved(extent)
        weights_shape = (o, c // group, *kernel) if op == "Convolution" else (c, o // group, *kernel)
        x, w, y = b.data(images, c, *extent), b.data(*weights_shape), b.room(images, o, *out)
        beta = b.data(o) if bias else None
        dy, dx, dw = b.data(images, o, *out), b.room(images, c, *extent), b.data(*weights_shape)
        db = b.data(o) if bias else None
        last = (relu,) if op == "Convolution" else ()
        operator = getattr(b.ops, op)(window, x, w, beta, y, *last)
        operator.forward(x, w, beta, y)
        b.told("y", y)
        operator.backward(dy, x, w, dx, dw, db)
        b.told("dx", dx)
        b.told("dw", dw)
        if db is not None:
            b.told("db", db)

    return run


for op in ("Convolution", "Deconvolution"):
    row(f"{op} 3x3", convolution(op, (3, 3), (1, 1), (1, 1), (1, 1)))
    row(f"{op} with stride and uneven kernel", convolution(op, (3, 2), (2, 3), (1, 0), (1, 1)))
    row(f"{op} with dilation", convolution(op, (3, 2), (1, 2), (2, 1), (2, 3)))
    row(f"{op} in groups", convolution(op, (3, 3), (2, 2), (1, 1), (1, 1), group=2))
    row(f"{op} of each channel", convolution(op, (3, 3), (1, 1), (1, 1), (1, 1), group=6, channels=(6, 6)))
    row(f"{op} 1x1", convolution(op, (1, 1), (1, 1), (0, 0), (1, 1), bias=False))
    row(f"{op} of one image", convolution(op, (3, 3), (1, 1), (1, 1), (1, 1), images=1, group=2))
    row(f"{op} on a line", convolution(op, (4,), (2,), (1,), (1,), extent=(13,)))
    row(f"{op} on a volume", convolution(op, (3, 2, 2), (2, 1, 1), (1, 0, 1), (1, 2, 1), extent=(5, 6, 4)))
    row(f"{op} in groups on a line", convolution(op, (3,), (1,), (1,), (1,), extent=(13,), group=2))
row("Convolution with ReLU", convolution("Convolution", (3, 3), (1, 1), (1, 1), (1, 1), relu=True))
row(
    "Convolution 1x1 with ReLU",
    convolution("Convolution", (1, 1), (1, 1), (0, 0), (1, 1), relu=True, bias=False),
)


def im2col(kernel: tuple[int, ...], extent: tuple[int, ...]) -> Run:
    def run(b: Bench) -> None:
        n = len(kernel)
        window = ConvolutionWindow(kernel=kernel, stride=(2,) * n, pad=(1,) * n, dilation=(1,) * n)
        top = (2, 3 * prod(kernel), *window.convolved(extent))
        x, y, dy, dx = b.data(2, 3, *extent), b.room(*top), b.data(*top), b.room(2, 3, *extent)
        operator = b.ops.Im2col(window, x, y)
        operator.forward(x, y)
        operator.backward(dy, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


row("Im2col", im2col((3, 2), (7, 6)))
row("Im2col on a volume", im2col((2, 3, 2), (4, 5, 6)))


def inner_product(transpose: bool, relu: bool, bias: bool) -> Run:
    def run(b: Bench) -> None:
        m, n, k = 5, 7, 11
        x, w, y = b.data(m, k), b.data(*((k, n) if transpose else (n, k))), b.room(m, n)
        beta = b.data(n) if bias else None
        dy, dx, dw = b.data(m, n), b.room(m, k), b.data(*w.shape)
        db = b.data(n) if bias else None
        operator = b.ops.InnerProduct(x, w, beta, y, transpose, relu)
        operator.forward(x, w, beta, y)
        operator.backward(dy, x, w, dx, dw, db)
        for name, array in (("y", y), ("dx", dx), ("dw", dw), ("db", db)):
            if array is not None:
                b.told(name, array)

    return run


row("InnerProduct", inner_product(False, False, True))
row("InnerProduct transposed", inner_product(True, False, True))
row("InnerProduct with ReLU", inner_product(False, True, True))
row("InnerProduct without bias", inner_product(False, True, False))
