"""One time step of an LSTM for a batch of streams.

c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c), s the logistic function; the gates lie in the order
i, f, o, g. Source: Caffe's LSTMUnitLayer.
"""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend


def activate(gates: Plain) -> None:
    """In place, (N, 4 D): the logistic function of i, f, o and the tanh of g."""
    own = gates.shape[1] // 4 * 3
    logistic, rest = gates[:, :own], gates[:, own:]
    logistic *= 0.5  # s(x) = (1 + tanh(x / 2)) / 2 never overflows
    np.tanh(logistic, out=logistic)
    logistic += 1
    logistic *= 0.5
    np.tanh(rest, out=rest)


def advance(c_prev: Plain, activated: Plain, cont: Plain, c: Plain, h: Plain) -> None:
    """Overwrites c and h (N, D); cont is (N, 1)."""
    i, f, o, g = np.split(activated, 4, axis=1)
    c[...] = cont * f * c_prev + i * g
    np.multiply(o, np.tanh(c), out=h)


def retreat(
    c_prev: Plain, activated: Plain, cont: Plain, c: Plain, c_diff: Plain, h_diff: Plain, gates_diff: Plain
) -> Plain:
    """Overwrites the diff of the gates before activation (N, 4 D); returns that of c_prev (N, D)."""
    i, f, o, g = np.split(activated, 4, axis=1)
    di, df, do, dg = np.split(gates_diff, 4, axis=1)
    tanh_c = np.tanh(c)
    dc = c_diff + h_diff * o * (1 - tanh_c * tanh_c)
    di[...] = dc * g * i * (1 - i)
    df[...] = dc * c_prev * cont * f * (1 - f)
    do[...] = h_diff * tanh_c * o * (1 - o)
    dg[...] = dc * i * (1 - g * g)
    before: Plain = dc * cont * f
    return before


@final
class LSTMUnit:
    """c_prev (1, N, D), gates (1, N, 4 D), cont (1, N) -> c, h (1, N, D)."""

    def __init__(self, backend: Backend, c_prev: SyncedArray, c: SyncedArray, h: SyncedArray) -> None:
        self.activated: Plain | None = None  # (N, 4 D) of the last forward pass
        self.implementation = "numpy"

    def forward(
        self, c_prev: SyncedArray, gates: SyncedArray, cont: SyncedArray, c: SyncedArray, h: SyncedArray
    ) -> None:
        self.activated = gates.plain()[0].copy()
        activate(self.activated)
        going_on = cont.plain().reshape(-1, 1)
        advance(c_prev.plain()[0], self.activated, going_on, c.plain_overwrite()[0], h.plain_overwrite()[0])

    def backward(
        self,
        c_diff: SyncedArray,
        h_diff: SyncedArray,
        c_prev: SyncedArray,
        cont: SyncedArray,
        c: SyncedArray,
        c_prev_diff: SyncedArray | None,
        gates_diff: SyncedArray | None,
    ) -> None:
        """Overwrites the last two; None is not wanted."""
        assert self.activated is not None, "forward ran before"
        room = gates_diff.plain_overwrite()[0] if gates_diff is not None else np.empty_like(self.activated)
        before = retreat(
            c_prev.plain()[0],
            self.activated,
            cont.plain().reshape(-1, 1),
            c.plain()[0],
            c_diff.plain()[0],
            h_diff.plain()[0],
            room,
        )
        if c_prev_diff is not None:
            c_prev_diff.plain_overwrite()[0] = before
