"""Rows for pooling, normalisation, reductions and update rules: the second part of the operators' table."""

from __future__ import annotations

from math import prod

import numpy as np

from dtrain.kernels.loss_scaling import LossScaling, ScaleState
from dtrain.kernels.update_rule import Place, UpdateRule
from dtrain.kernels.window import PoolingWindow
from dtrain.solvers import rules
from tests.kernels.cuda.bench import Bench, Run
from tests.kernels.cuda.operators import ROWS, row

__all__ = ["ROWS", "row"]


# -- pooling and normalisation


def pooling(
    method: str,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pad: tuple[int, int],
    *,
    training: bool = True,
    argmax: bool = False,
    ties: bool = False,
) -> Run:
    def run(b: Bench) -> None:
        window = PoolingWindow(method=method, kernel=kernel, stride=stride, pad=pad)
        shape, out = (2, 3, 9, 10), window.pooled((9, 10))
        x = b.distinct(*shape) if method == "MAX" else b.positive(*shape)
        if ties:
            x = b.holding(np.round(x.plain() / 16))
        y, dy, dx = b.room(2, 3, *out), b.data(2, 3, *out), b.room(*shape)
        index = b.room(2, 3, *out) if argmax else None
        operator = b.ops.Pooling(window, training, x, y, index)
        if method == "STOCHASTIC":
            operator.draw(2**63 + 1234, 1, 2)
        operator.forward(x, y, index)
        b.told("y", y)
        if index is not None:
            b.told("argmax", index)
        if training or method != "STOCHASTIC":
            operator.backward(dy, dx)
            b.told("dx", dx)

    return run


for method in ("MAX", "AVE"):
    row(f"Pooling {method} that overlaps", pooling(method, (3, 3), (2, 2), (0, 0), argmax=method == "MAX"))
    row(f"Pooling {method} padded", pooling(method, (3, 2), (2, 1), (1, 1)))
    row(f"Pooling {method} with gaps", pooling(method, (3, 3), (4, 4), (0, 0)))
    row(f"Pooling {method} of all", pooling(method, (9, 10), (1, 1), (0, 0)))
row("Pooling MAX with ties", pooling("MAX", (3, 3), (1, 1), (1, 1), argmax=True, ties=True))
row("Pooling STOCHASTIC", pooling("STOCHASTIC", (3, 3), (2, 2), (0, 0)))
row("Pooling STOCHASTIC in testing", pooling("STOCHASTIC", (3, 2), (2, 2), (0, 0), training=False))


def spp(b: Bench) -> None:
    windows = [
        PoolingWindow(method="MAX", kernel=(7, 9), stride=(7, 9), pad=(0, 0)),
        PoolingWindow(method="MAX", kernel=(4, 5), stride=(4, 5), pad=(0, 0)),
    ]
    x, dx = b.distinct(2, 3, 7, 9), b.room(2, 3, 7, 9)
    width = sum(3 * prod(window.pooled((7, 9))) for window in windows)
    y, dy = b.room(2, width), b.data(2, width)
    operator = b.ops.SPP(windows, True, x, y)
    operator.draw(2**64 - 1, 1, 2)
    operator.forward(x, y)
    operator.backward(dy, dx)
    b.told("y", y)
    b.told("dx", dx)


row("SPP", spp)


def lrn(region: str, size: int) -> Run:
    def run(b: Bench) -> None:
        shape = (2, 7, 5, 6)
        x, y, dy, dx = b.data(*shape), b.room(*shape), b.data(*shape), b.room(*shape)
        operator = b.ops.LRN(region, size, 0.5, 0.75, 1.5, x, y)
        operator.forward(x, y)
        operator.backward(dy, x, y, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


for region in ("ACROSS_CHANNELS", "WITHIN_CHANNEL"):
    row(f"LRN {region}", lrn(region, 5))
    row(f"LRN {region}, wider than the data", lrn(region, 15))


def batch_norm(shape: tuple[int, ...], in_place: bool, use_global: bool, affine: bool) -> Run:
    def run(b: Bench) -> None:
        c = shape[1] if len(shape) > 1 else 1
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        mean, variance, factor = b.data(c), b.positive(c), b.positive(1)
        scale, bias = (b.data(c), b.data(c)) if affine else (None, None)
        ds, db = (b.data(c), b.data(c)) if affine else (None, None)
        operator = b.ops.BatchNorm(1e-3, 0.9, use_global, x, y)
        operator.forward(x, mean, variance, factor, scale, bias, y)
        for name, array in (("y", y), ("mean", mean), ("variance", variance), ("factor", factor)):
            b.told(name, array)
        operator.backward(dy, x, scale, dx, ds, db)
        b.told("dx", dx)
        if ds is not None and db is not None:
            b.told("ds", ds)
            b.told("db", db)

    return run


for in_place in (False, True):
    for use_global in (False, True):
        told = f"{' in place' if in_place else ''}{' of gathered values' if use_global else ''}"
        row(f"BatchNorm{told}", batch_norm((3, 5, 7, 3), in_place, use_global, False))
        row(f"BatchNorm with scale{told}", batch_norm((3, 5, 7), in_place, use_global, True))
row("BatchNorm of one channel", batch_norm((13,), False, False, True))
row("BatchNorm in several parts", batch_norm((3, 2, 61, 83), False, False, True))


def scale(axis: int, factors: tuple[int, ...], in_place: bool, bias: bool) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 7)
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        s, ds = b.data(*factors), b.data(*factors)
        beta, db = (b.data(*factors), b.data(*factors)) if bias else (None, None)
        operator = b.ops.Scale(axis, x, s, beta, y)
        operator.forward(x, s, beta, y, True)
        b.told("y", y)
        operator.backward(dy, x, s, dx, ds, db)
        for name, array in (("dx", dx), ("ds", ds), ("db", db)):
            if array is not None:
                b.told(name, array)
        other = b.ops.Bias(axis, x, s, y)
        other.forward(x, s, y)
        b.told("biased", y)
        other.backward(dy, dx, ds)
        b.told("bias's dx", dx)
        b.told("bias's diff", ds)

    return run


for in_place in (False, True):
    told = " in place" if in_place else ""
    row(f"Scale of channels{told}", scale(1, (5,), in_place, True))
    row(f"Scale of the first axes{told}", scale(0, (3, 5), in_place, False))
    row(f"Scale by one value{told}", scale(0, (), in_place, True))
    row(f"Scale of everything{told}", scale(0, (3, 5, 7), in_place, True))


def prelu(shared: bool, in_place: bool) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 7)
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        s, ds = (b.data(), b.data()) if shared else (b.data(5), b.data(5))
        operator = b.ops.PReLU(x, s, y)
        operator.forward(x, s, y)
        b.told("y", y)
        operator.backward(dy, x, s, dx, ds)
        b.told("dx", dx)
        b.told("ds", ds)

    return run


for shared in (False, True):
    for in_place in (False, True):
        told = f"{' in place' if in_place else ''}"
        row(f"PReLU {'of one slope' if shared else 'of channels'}{told}", prelu(shared, in_place))


def mvn(rows: int, variance: bool, in_place: bool) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 7, 11)
        x, dy = b.data(*shape), b.data(*shape)
        y, dx = (x, dy) if in_place else (b.room(*shape), b.room(*shape))
        operator = b.ops.MVN(rows, variance, 1e-3, x, y)
        operator.forward(x, y)
        b.told("y", y)
        operator.backward(dy, x, dx)
        b.told("dx", dx)

    return run


for in_place in (False, True):
    told = " in place" if in_place else ""
    row(f"MVN of channels{told}", mvn(15, True, in_place))
    row(f"MVN of images{told}", mvn(3, True, in_place))
    row(f"MVN of means only{told}", mvn(15, False, in_place))


def normalize(across: bool, shared: bool) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 7, 2)
        x, y, dy, dx = b.data(*shape), b.room(*shape), b.data(*shape), b.room(*shape)
        s, ds = (b.data(), b.data()) if shared else (b.data(5), b.data(5))
        operator = b.ops.Normalize(across, 1e-3, x, s, y)
        operator.forward(x, s, y)
        operator.backward(dy, x, s, dx, ds)
        for name, array in (("y", y), ("dx", dx), ("ds", ds)):
            b.told(name, array)

    return run


for across in (False, True):
    for shared in (False, True):
        of = "images" if across else "positions"
        row(f"Normalize of {of}{', one scale' if shared else ''}", normalize(across, shared))


def reduction(op: str, top: tuple[int, ...]) -> Run:
    def run(b: Bench) -> None:
        shape = (3, 5, 67)
        x, y, dy, dx = b.data(*shape), b.room(*top), b.data(*top), b.room(*shape)
        operator = getattr(b.ops, op)(1.5, x, y)
        operator.forward(x, y)
        operator.backward(dy, x, dx)
        b.told("y", y)
        b.told("dx", dx)

    return run


for op in ("ReduceSum", "ReduceAsum", "ReduceSumsq"):
    row(f"{op} to rows", reduction(op, (3, 5)))
    row(f"{op} to one value", reduction(op, ()))


# -- update rules

PLACES = [Place(0, 7, 1.0, 0.01), Place(16, 16 + 9001, 2.0, 0.0), Place(9024, 9057, 0.5, 0.1)]
RULES: list[UpdateRule] = [
    rules.SGD(momentum=0.9),
    rules.Nesterov(momentum=0.9),
    rules.AdaGrad(delta=1e-3),
    rules.RMSProp(rms_decay=0.9, delta=1e-3),
    rules.AdaDelta(momentum=0.9, delta=1e-3),
    rules.Adam(momentum=0.9, momentum2=0.99, delta=1e-3),
]


def update(rule: UpdateRule, l1: bool, clip: float | None = None) -> Run:
    def run(b: Bench) -> None:
        length = 9057
        parts = {name: b.backend.flat(length) for name in ("w", "g", *rule.slots)}
        arrays = {name: b.data(length).twin(flat) for name, flat in parts.items()}
        arrays["w"].plain_overwrite()[...] = b.data(length).plain()
        arrays["g"].plain_overwrite()[...] = b.data(length).plain()
        for array in arrays.values():
            array.pull()
        slots = {name: parts[name] for name in rule.slots}
        operator = b.ops.Update(rule, PLACES, parts["w"], parts["g"], slots, l1, clip)
        for it in range(3):
            operator.set(it, 0.1, 2, 3)
            operator.step()
            if clip is not None:
                b.told(f"norm {it}", operator.gradient_norm())
        for name, array in arrays.items():
            array.push()
            b.told(name, array)

    return run


for rule in RULES:
    row(f"Update by {rule.name}", update(rule, False))
row("Update by SGD with L1", update(RULES[0], True))
row("Update by SGD, clipped", update(RULES[0], False, 1.5))
row("Update by Adam below the clip", update(RULES[-1], False, 1e6))


def loss_scale(clip: float | None, scaling: LossScaling) -> Run:
    """Steps whose gradients are good, no numbers twice, and good again."""

    def run(b: Bench) -> None:
        length = 9057
        scale = b.ops.LossScale(scaling)
        w, h = b.backend.flat(length), b.backend.flat(length)
        g = b.backend.flat(length)
        arrays = {name: b.data(length).twin(flat) for name, flat in (("w", w), ("g", g), ("h", h))}
        operator = b.ops.Update(RULES[0], PLACES, w, g, {"history": h}, False, clip, scale)
        for it, bad in enumerate((None, None, np.inf, np.nan, None)):
            diff = b.data(3, 5, 2, 2)
            scale.apply(diff)
            b.told(f"diff {it}", diff)
            values = b.data(length).plain().copy() * scale.state().scale
            if bad is not None:
                values[20] = bad
            arrays["g"].plain_overwrite()[...] = values
            arrays["g"].pull()
            operator.set(it, 0.1, 2, 1)
            operator.step()
            arrays["w"].push()
            b.told(f"w {it}", arrays["w"])
            for name, number in scale.state()._asdict().items():
                b.told(f"{name} {it}", number)
            if bad is None:
                b.told(f"norm {it}", operator.gradient_norm())
        scale.restore(ScaleState(8.0, 1, 2, 3))
        b.told("restored", scale.state().scale)

    return run


row("LossScale", loss_scale(None, LossScaling(initial=1024, patience=2, growth=4.0)))
row("LossScale that is fixed, with clip", loss_scale(0.5, LossScaling(initial=1024, adapts=False)))
row("LossScale below its bounds", loss_scale(None, LossScaling(initial=2, patience=1, least=8, growth=2)))
row("LossScale above its bounds", loss_scale(None, LossScaling(initial=1024, patience=1, most=512)))
row("LossScale at its bounds", loss_scale(None, LossScaling(initial=1024, patience=1, least=1000, most=1500)))
