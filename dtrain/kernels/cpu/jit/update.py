"""One step of an update rule over the flat buffers in a single pass: bound by memory, on all threads.

The buffers are cut into chunks, each within one parameter, and the chunks are dealt to the threads. The
formulas are those of dtrain.solvers.rules, which define the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, final

import numba
import numpy as np

from dtrain.kernels.backend import Unsupported
from dtrain.kernels.cpu import threads
from dtrain.kernels.cpu.gradient_norm import GradientNorm
from dtrain.kernels.cpu.loss_scale import LossScale
from dtrain.kernels.update_rule import Place, Slice, UpdateRule

if TYPE_CHECKING:
    from dtrain.kernels.cpu.backend import CpuBackend

CHUNK: Final = 1 << 14  # elements: three streams of 64 KiB share a second-level cache

ROUNDING: Final = {"contract", "nsz"}  # a product and a sum may be rounded once; no sum is reordered
# Sums of squares are kept in float64, where the order of adding does not show in float32.
REORDERING: Final = {"contract", "nsz", "reassoc"}


@numba.njit(inline="always")
def _gradient(w, g, decay, scale, l1):  # type: ignore[no-untyped-def]
    """scale * g + decay * w, or the sign of w."""
    if l1:
        return scale * g + decay * (np.float32(w > 0) - np.float32(w < 0))
    return scale * g + decay * w


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _sgd_chunk(w, g, h, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    momentum = p[0]
    for i in range(w.size):
        step = momentum * h[i] + lr * _gradient(w[i], g[i], decay, scale, l1)
        h[i] = step
        w[i] -= step


@numba.njit(parallel=True, nogil=True, cache=True)
def sgd(w, g, h, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _sgd_chunk(w[a:b], g[a:b], h[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _nesterov_chunk(w, g, h, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    momentum, ahead = p[0], np.float32(1) + p[0]
    for i in range(w.size):
        old = h[i]
        new = momentum * old + lr * _gradient(w[i], g[i], decay, scale, l1)
        h[i] = new
        w[i] -= ahead * new - momentum * old


@numba.njit(parallel=True, nogil=True, cache=True)
def nesterov(w, g, h, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _nesterov_chunk(w[a:b], g[a:b], h[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _adagrad_chunk(w, g, s, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    delta = p[0]
    for i in range(w.size):
        d = _gradient(w[i], g[i], decay, scale, l1)
        s[i] += d * d
        w[i] -= lr * (d / (np.sqrt(s[i]) + delta))


@numba.njit(parallel=True, nogil=True, cache=True)
def adagrad(w, g, s, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _adagrad_chunk(w[a:b], g[a:b], s[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _rmsprop_chunk(w, g, s, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    keep, add, delta = p[0], p[1], p[2]
    for i in range(w.size):
        d = _gradient(w[i], g[i], decay, scale, l1)
        s[i] = keep * s[i] + add * (d * d)
        w[i] -= lr * (d / (np.sqrt(s[i]) + delta))


@numba.njit(parallel=True, nogil=True, cache=True)
def rmsprop(w, g, s, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _rmsprop_chunk(w[a:b], g[a:b], s[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _adadelta_chunk(w, g, s, t, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    keep, add, delta = p[0], p[1], p[2]
    for i in range(w.size):
        d = _gradient(w[i], g[i], decay, scale, l1)
        s[i] = keep * s[i] + add * (d * d)
        u = d * np.sqrt((t[i] + delta) / (s[i] + delta))
        t[i] = keep * t[i] + add * (u * u)
        w[i] -= lr * u


@numba.njit(parallel=True, nogil=True, cache=True)
def adadelta(w, g, s, t, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _adadelta_chunk(w[a:b], g[a:b], s[a:b], t[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=ROUNDING, error_model="numpy")
def _adam_chunk(w, g, m, v, lr, decay, scale, l1, p):  # type: ignore[no-untyped-def]
    keep_m, add_m, keep_v, add_v, delta, correction = p[0], p[1], p[2], p[3], p[4], p[5]
    rate = lr * correction
    for i in range(w.size):
        d = _gradient(w[i], g[i], decay, scale, l1)
        m[i] = keep_m * m[i] + add_m * d
        v[i] = keep_v * v[i] + add_v * (d * d)
        w[i] -= rate * (m[i] / (np.sqrt(v[i]) + delta))


@numba.njit(parallel=True, nogil=True, cache=True)
def adam(w, g, m, v, begins, ends, owners, lrs, decays, scale, l1, p):  # type: ignore[no-untyped-def]
    for c in numba.prange(begins.size):
        a, b, k = begins[c], ends[c], owners[c]
        _adam_chunk(w[a:b], g[a:b], m[a:b], v[a:b], lrs[k], decays[k], scale, l1, p)


@numba.njit(fastmath=REORDERING)
def _squares_chunk(g):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(g.size):
        total += np.float64(g[i]) * np.float64(g[i])
    return total


@numba.njit(parallel=True, nogil=True, cache=True)
def squares(g, begins, ends, sums):  # type: ignore[no-untyped-def]
    """One sum a chunk, so that the total does not depend on the number of threads."""
    for c in numba.prange(begins.size):
        sums[c] = _squares_chunk(g[begins[c] : ends[c]])


KERNELS: Final[dict[str, Callable[..., None]]] = {
    "SGD": sgd,
    "Nesterov": nesterov,
    "AdaGrad": adagrad,
    "RMSProp": rmsprop,
    "AdaDelta": adadelta,
    "Adam": adam,
}


@final
class Update:
    """As kernels/cpu/update.py says, in float32."""

    def __init__(
        self,
        backend: CpuBackend,
        rule: UpdateRule,
        places: Sequence[Place],
        w: Slice,
        g: Slice,
        slots: dict[str, Slice],
        l1: bool,
        clip: float | None = None,
        loss_scale: LossScale | None = None,
    ) -> None:
        if backend.dtype != np.float32:
            raise Unsupported(f"{backend.dtype} weights")
        if rule.name not in KERNELS:
            raise Unsupported(f"the rule {rule.name}")
        self._rule = rule
        self._kernel = KERNELS[rule.name]
        self._w, self._g, self._slots = w, g, [slots[name] for name in rule.slots]
        self._l1 = l1
        self._lr_mults = np.array([place.lr_mult for place in places], np.float32)
        self._decays = np.array([place.decay for place in places], np.float32)
        table = [
            (begin, min(begin + CHUNK, place.stop), k)
            for k, place in enumerate(places)
            for begin in range(place.start, place.stop, CHUNK)
        ]
        self._begins, self._ends, self._owners = np.array(table, np.int64).reshape(-1, 3).T.copy()
        self._sums = np.zeros(len(table), np.float64)
        self._norm = GradientNorm(clip, loss_scale)
        threads.lead_numba()

    def _sum_of_squares(self) -> float:
        squares(self._g, self._begins, self._ends, self._sums)
        return float(self._sums.sum())

    def set(self, it: int, lr: float, ranks: int, passes: int) -> None:
        """For the steps that follow: iteration, rate, and that gradients are sums over ranks x passes."""
        self._lrs = np.float32(lr) * self._lr_mults
        self._constants = np.array(self._rule.scalars(it), np.float32)
        self._ranks, self._passes = ranks, passes

    def step(self) -> None:
        """w follows mean g + decay * w (or its sign) at the rate lr * lr_mult; g stays as it is."""
        factor = self._norm.factor(self._sum_of_squares, self._ranks)
        if factor is None:
            return
        scale = np.float32(factor / (self._passes * self._ranks))
        chunks = (self._begins, self._ends, self._owners)
        numbers = self._lrs, self._decays, scale, self._l1, self._constants
        self._kernel(self._w, self._g, *self._slots, *chunks, *numbers)

    def gradient_norm(self) -> float:
        """L2, of the last step, mean over the ranks, without the loss scale; NaN where it is not needed."""
        return self._norm.value
