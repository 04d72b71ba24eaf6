"""A layer of simple recurrent units over T time steps of N streams. Source: Caffe's RNNLayer."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.array import Plain, SyncedArray
from dtrain.kernels.backend import Backend
from dtrain.kernels.cpu.recurrence import drive, drive_back, rows


@final
class RNN:
    """x (T, N, ...), cont (T, N), static (N, ...) or None, start h (1, N, D) -> top (T, N, D), end h.

    h = tanh(w_x x + bias + w_static static + w_h (cont h_prev)), top = tanh(w_out h + bias_out).
    """

    def __init__(self, backend: Backend, x: SyncedArray, top: SyncedArray) -> None:
        self.h: Plain | None = None  # (T, N, D)
        self.h_in: Plain | None = None  # (T, N, D), cont h_prev
        self.y: Plain | None = None  # (T, N, D), for the layer behind may overwrite the top
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
        w_out: SyncedArray,
        bias_out: SyncedArray,
        start: SyncedArray,
        top: SyncedArray,
        end: SyncedArray,
    ) -> None:
        """`end` may be `start`."""
        h = drive(x, static, w_x, bias, w_static)
        recurrent = w_h.plain().T
        going_on = cont.plain()[:, :, None]
        h_in = np.empty_like(h)
        h_prev = start.plain()[0]
        for t, now in enumerate(h):
            np.multiply(h_prev, going_on[t], out=h_in[t])
            now += h_in[t] @ recurrent
            np.tanh(now, out=now)
            h_prev = now
        end.plain_overwrite()[0] = h_prev
        y = rows(h) @ w_out.plain().T
        y += bias_out.plain()
        np.tanh(y, out=y)
        self.h, self.h_in, self.y = h, h_in, y.reshape(h.shape)
        top.plain_overwrite()[...] = self.y

    def backward(
        self,
        top_diff: SyncedArray,
        x: SyncedArray,
        cont: SyncedArray,
        static: SyncedArray | None,
        w_x: SyncedArray,
        w_static: SyncedArray | None,
        w_h: SyncedArray,
        w_out: SyncedArray,
        x_diff: SyncedArray | None,
        static_diff: SyncedArray | None,
        w_x_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
        w_static_diff: SyncedArray | None,
        w_h_diff: SyncedArray | None,
        w_out_diff: SyncedArray | None,
        bias_out_diff: SyncedArray | None,
    ) -> None:
        """Overwrites x_diff and static_diff, adds to the others; start and end have no gradient."""
        assert self.h is not None and self.h_in is not None and self.y is not None
        recurrent, going_on = w_h.plain(), cont.plain()[:, :, None]
        out_diff = top_diff.plain() * (1 - self.y * self.y)
        if w_out_diff is not None:
            w_out_diff.plain_mutable()[...] += rows(out_diff).T @ rows(self.h)
        if bias_out_diff is not None:
            bias_out_diff.plain_mutable()[...] += rows(out_diff).sum(axis=0)
        diff = (rows(out_diff) @ w_out.plain()).reshape(self.h.shape)
        slope = 1 - self.h * self.h
        h_diff = np.zeros_like(diff[0])
        for t in range(len(diff) - 1, -1, -1):
            diff[t] += h_diff
            diff[t] *= slope[t]
            h_diff = diff[t] @ recurrent * going_on[t]
        if w_h_diff is not None:
            w_h_diff.plain_mutable()[...] += rows(diff).T @ rows(self.h_in)
        drive_back(diff, x, static, w_x, w_static, x_diff, static_diff, w_x_diff, bias_diff, w_static_diff)
