"""A layer of LSTM units over T time steps of N streams. Source: Caffe's LSTMLayer."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.lstm_unit import activate, advance, retreat
from dtrain.kernels.cpu.recurrence import drive, drive_back, rows


@final
class LSTM:
    """x (T, N, ...), cont (T, N), static (N, ...) or None, start h, c (1, N, D) -> top h (T, N, D), end h, c.

    Gates (4 D): w_x x + bias + w_static static + w_h (cont h_prev). cont 0 begins a new sequence.
    """

    def __init__(self, backend: Backend, x: SyncedArray, top: SyncedArray) -> None:
        self.activated: Plain | None = None  # (T, N, 4 D)
        self.c: Plain | None = None  # (T + 1, N, D), the start first
        self.h_in: Plain | None = None  # (T, N, D), cont h_prev
        self.implementation = "numpy"

    def forward(
        self,
        x: SyncedArray,
        cont: SyncedArray,
        static: SyncedArray | None,
        w_x: SyncedArray,
        bias: SyncedArray,
        w_static: SyncedArray | None,
        w_h: SyncedArray,
        start: tuple[SyncedArray, SyncedArray],
        top: SyncedArray,
        end: tuple[SyncedArray, SyncedArray],
    ) -> None:
        """`end` may be `start`."""
        gates = drive(x, static, w_x, bias, w_static)
        recurrent = w_h.plain().T
        going_on = cont.plain()[:, :, None]
        h = top.plain_overwrite()
        c = np.empty((len(h) + 1, *h.shape[1:]), h.dtype)
        h_in = np.empty_like(h)
        h_prev = start[0].plain()[0]
        c[0] = start[1].plain()[0]
        for t, now in enumerate(gates):
            np.multiply(h_prev, going_on[t], out=h_in[t])
            now += h_in[t] @ recurrent
            activate(now)
            advance(c[t], now, going_on[t], c[t + 1], h[t])
            h_prev = h[t]
        end[0].plain_overwrite()[0] = h_prev
        end[1].plain_overwrite()[0] = c[-1]
        self.activated, self.c, self.h_in = gates, c, h_in

    def backward(
        self,
        top_diff: SyncedArray,
        x: SyncedArray,
        cont: SyncedArray,
        static: SyncedArray | None,
        w_x: SyncedArray,
        w_static: SyncedArray | None,
        w_h: SyncedArray,
        x_diff: SyncedArray | None,
        static_diff: SyncedArray | None,
        w_x_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
        w_static_diff: SyncedArray | None,
        w_h_diff: SyncedArray | None,
    ) -> None:
        """Overwrites x_diff and static_diff, adds to the others; start and end have no gradient."""
        assert self.activated is not None and self.c is not None and self.h_in is not None
        dy, recurrent, going_on = top_diff.plain(), w_h.plain(), cont.plain()[:, :, None]
        gates_diff = np.empty_like(self.activated)
        h_diff, c_diff = np.zeros_like(dy[0]), np.zeros_like(dy[0])
        for t in range(len(dy) - 1, -1, -1):
            c_diff = retreat(
                self.c[t],
                self.activated[t],
                going_on[t],
                self.c[t + 1],
                c_diff,
                dy[t] + h_diff,
                gates_diff[t],
            )
            h_diff = gates_diff[t] @ recurrent * going_on[t]
        if w_h_diff is not None:
            w_h_diff.plain_mutable()[...] += rows(gates_diff).T @ rows(self.h_in)
        drive_back(
            gates_diff,
            x,
            static,
            w_x,
            w_static,
            x_diff,
            static_diff,
            w_x_diff,
            bias_diff,
            w_static_diff,
        )
