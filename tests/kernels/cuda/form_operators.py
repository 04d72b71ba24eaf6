"""Rows for what only certain forms and shapes reach, and the table of those that run in every form."""

from __future__ import annotations

from collections.abc import Sequence

from dtrain.kernels.window import PoolingWindow
from tests.kernels.cuda import more_operators
from tests.kernels.cuda.bench import Bench, Run
from tests.kernels.cuda.more_operators import ROWS, row

__all__ = ["IN_FORMS", "ROWS"]


def sums(count: int, num_diffs: int, shape: Sequence[int]) -> Run:
    def run(b: Bench) -> None:
        xs = [b.data(*shape) for _ in range(count)]
        y, dys, dxs = b.room(*shape), [b.data(*shape) for _ in range(num_diffs)], [b.room(*shape) for _ in xs]
        coefficients = [1.0, -0.5, 2.0, 1.0, 0.25, 1.0, -1.0, 0.5][:count]
        b.ops.Sum(coefficients, xs, y).forward(xs, y)
        b.told("sum", y)
        operator = b.ops.SumReLU(coefficients, xs, y)
        operator.forward(xs, y)
        b.told("y", y)
        operator.backward(dys, y, dxs)
        for i, dx in enumerate(dxs):
            b.told(f"dx{i}", dx)
        operator.backward(dys, y, [*dxs[:1], *[None] * (count - 1)])
        b.told("one dx", dxs[0])

    return run


for count, num_diffs in ((1, 1), (2, 2), (2, 1), (3, 3), (5, 4), (8, 6)):
    row(f"SumReLU of {count} images and {num_diffs} diffs", sums(count, num_diffs, (2, 3, 5, 7)))


def sum_relu_in_place(b: Bench) -> None:
    x, other, dy, dx = b.data(2, 8, 3, 5), b.data(2, 8, 3, 5), b.data(2, 8, 3, 5), b.room(2, 8, 3, 5)
    operator = b.ops.SumReLU([1.0, 1.0], [x, other], x)
    operator.forward([x, other], x)
    operator.backward([dy], x, [dy, dx])
    for name, array in (("y", x), ("dx0", dy), ("dx1", dx)):
        b.told(name, array)


row("SumReLU in place", sum_relu_in_place)


def concat_images(axis: int, extents: Sequence[int], wanted: Sequence[bool]) -> Run:
    def run(b: Bench) -> None:
        shapes = [tuple(e if i == axis else (2, 16, 3, 4)[i] for i in range(4)) for e in extents]
        whole = tuple(sum(extents) if i == axis else (2, 16, 3, 4)[i] for i in range(4))
        xs, dy, y = [b.data(*shape) for shape in shapes], b.data(*whole), b.room(*whole)
        dxs = [b.room(*shape) if wants else None for shape, wants in zip(shapes, wanted, strict=True)]
        operator = b.ops.Concat(axis, xs, y)
        operator.forward(xs, y)
        operator.backward(dy, dxs)
        tops, back = [b.room(*shape) for shape in shapes], b.room(*whole)
        slices = b.ops.Slice(axis, dy, tops)
        slices.forward(dy, tops)
        slices.backward(xs, back)
        b.told("y", y)
        b.told("back", back)
        for i, (top, dx) in enumerate(zip(tops, dxs, strict=True)):
            b.told(f"slice{i}", top)
            if dx is not None:
                b.told(f"dx{i}", dx)

    return run


for axis in range(4):
    row(f"Concat of images at axis {axis}", concat_images(axis, (1, 4, 2), (True, False, True)))
row("Concat of images, many at once", concat_images(1, (8, 16, 24), (True, True, True)))
row("Concat of six", concat_images(1, (8, 16, 8, 24, 8, 16), (True, False, True, True, True, True)))
row("Concat of five, two left out", concat_images(1, (3, 5, 2, 1, 4), (False, True, True, True, False)))
row("Concat of images of one channel", concat_images(1, (1, 1), (True, True)))


def pooled_images(
    method: str,
    kernel: int,
    stride: int,
    pad: int,
    *,
    channels: int = 16,
    extent: int = 9,
    ties: bool = False,
) -> Run:
    def run(b: Bench) -> None:
        window = PoolingWindow(method=method, kernel=(kernel,) * 2, stride=(stride,) * 2, pad=(pad,) * 2)
        shape = (2, channels, extent, extent + 1)
        top = (2, channels, *window.pooled(shape[2:]))
        x, dy, y, dx = b.data(*shape), b.data(*top), b.room(*top), b.room(*shape)
        if ties:
            x = b.integers(3, *shape)
        index = b.backend.array(top) if method == "MAX" else None
        operator = b.ops.Pooling(window, True, x, y, index)
        operator.forward(x, y, index)
        operator.backward(dy, dx)
        b.told("y", y)
        b.told("dx", dx)
        if index is not None:
            b.told("argmax", index)

    return run


for method in ("MAX", "AVE"):
    row(f"Pooling {method} of images, 3x3", pooled_images(method, 3, 2, 0))
    row(f"Pooling {method} of images, 3x3 padded", pooled_images(method, 3, 1, 1))
    row(f"Pooling {method} of images, 2x2", pooled_images(method, 2, 2, 0))
    row(f"Pooling {method} of images, few channels", pooled_images(method, 3, 2, 1, channels=6))
row("Pooling MAX of images with ties", pooled_images("MAX", 3, 2, 0, ties=True))
row("Pooling MAX of images by a large window", pooled_images("MAX", 17, 1, 0, channels=8, extent=18))


def normalized_images(size: int, beta: float, channels: int) -> Run:
    def run(b: Bench) -> None:
        shape = (2, channels, 3, 5)
        x, y, dy, dx = b.data(*shape), b.room(*shape), b.data(*shape), b.room(*shape)
        operator = b.ops.LRN("ACROSS_CHANNELS", size, 0.5, beta, 1.5, x, y)
        operator.forward(x, y)
        operator.backward(dy, x, y, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


for size in (3, 5, 7):
    row(f"LRN of images over {size} channels", normalized_images(size, 0.75, 24))
row("LRN of images with another power", normalized_images(5, 0.6, 8))
row("LRN of images, few channels", normalized_images(5, 0.75, 6))


def scaled_images(axis: int, factors: tuple[int, ...], in_place: bool, channels: int) -> Run:
    def run(b: Bench) -> None:
        shape = (3, channels, 5, 7)
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        s, ds, beta, db = (b.data(*factors) for _ in range(4))
        operator = b.ops.Scale(axis, x, s, beta, y)
        operator.forward(x, s, beta, y, True)
        b.told("y", y)
        operator.backward(dy, x, s, dx, ds, db)
        for name, array in (("dx", dx), ("ds", ds), ("db", db)):
            b.told(name, array)

    return run


def shifted_images(b: Bench) -> None:
    x, dy, y, dx = b.data(3, 8, 5, 7), b.data(3, 8, 5, 7), b.room(3, 8, 5, 7), b.room(3, 8, 5, 7)
    beta, db = b.data(8), b.data(8)
    operator = b.ops.Bias(1, x, beta, y)
    operator.forward(x, beta, y)
    operator.backward(dy, dx, db)
    for name, array in (("y", y), ("dx", dx), ("db", db)):
        b.told(name, array)


for in_place in (False, True):
    told = " in place" if in_place else ""
    row(f"Scale of images{told}", scaled_images(1, (16,), in_place, 16))
    row(f"Scale of images by one value{told}", scaled_images(0, (), in_place, 16))
    row(f"Scale of images, few channels{told}", scaled_images(1, (3,), in_place, 3))
    row(f"Scale of images and channels{told}", scaled_images(0, (3, 8), in_place, 8))
row("Bias of images", shifted_images)


def sloped_images(shared: bool, in_place: bool) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 8, 7, 9)
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        s, ds = (b.data(), b.data()) if shared else (b.data(8), b.data(8))
        operator = b.ops.PReLU(x, s, y)
        operator.forward(x, s, y)
        b.told("y", y)
        operator.backward(dy, x, s, dx, ds)
        b.told("dx", dx)
        b.told("ds", ds)

    return run


for shared in (False, True):
    for in_place in (False, True):
        told = f"{' of one slope' if shared else ''}{' in place' if in_place else ''}"
        row(f"PReLU of images{told}", sloped_images(shared, in_place))


def inner_product(transpose: bool, is_clear: bool) -> Run:
    def run(b: Bench) -> None:
        m, n, image = 70, 8, (3, 2, 2)
        x, dx = b.data(m, *image), b.room(m, *image)
        w, beta, y = b.data(*((12, n) if transpose else (n, 12))), b.data(n), b.room(m, n)
        dy, dw, db = b.data(m, n), b.data(*w.shape), b.data(n)
        if is_clear:
            dw.clear()
        flat, flat_diff = x.view((m, 12)), dx.view((m, 12))
        operator = b.ops.InnerProduct(flat, w, beta, y, transpose)
        operator.forward(flat, w, beta, y)
        operator.backward(dy, flat, w, flat_diff, dw, db)
        for name, array in (("y", y), ("dx", dx), ("dw", dw), ("db", db)):
            b.told(name, array)

    return run


for transpose in (False, True):
    told = " transposed" if transpose else ""
    row(f"InnerProduct of images{told}", inner_product(transpose, False))
    row(f"InnerProduct of images, into clear diffs{told}", inner_product(transpose, True))


def dropped_images(b: Bench) -> None:
    x, dy, y, dx = b.data(3, 6, 3, 5), b.data(3, 6, 3, 5), b.room(3, 6, 3, 5), b.room(3, 6, 3, 5)
    operator = b.ops.Dropout(0.4, 1, 3, x, y)
    operator.draw(0xFEDCBA9876543210)
    operator.forward(x, y)
    operator.backward(dy, dx)
    b.told("y", y)
    b.told("dx", dx)


row("Dropout of images", dropped_images)

row("Crop of images", more_operators.moved("Crop", ((1, 2, 1, 3),), (3, 5, 7, 8), (2, 3, 4, 5)))
row("ShuffleChannel of images", more_operators.moved("ShuffleChannel", (4,), (2, 8, 3, 5), (2, 8, 3, 5)))


KEEP_THEIR_FORM = (
    *("ReLU", "ReLU6", "ELU", "Sigmoid", "TanH", "Swish", "BNLL", "AbsVal", "Exp", "Log", "Power", "Clip"),
    *("Threshold", "Sum", "SumReLU", "Maximum", "Product", "Concat", "InnerProduct", "Pooling", "LRN"),
    *("Scale", "Bias", "PReLU", "Dropout", "Crop", "Permute", "ShuffleChannel"),
)
IN_FORMS: dict[str, Run] = {
    name: run for name, run in ROWS.items() if name.split(" ")[0].split("[")[0] in KEEP_THEIR_FORM
}
