"""A layer of LSTM units over T time steps of N streams. Source: Caffe's LSTMLayer."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.recurrence import Drive


@final
class LSTM:
    """x (T, N, ...), cont (T, N), static (N, ...) or None, start h, c (1, N, D) -> top h (T, N, D), end h, c.

    Gates (4 D): w_x x + bias + w_static static + w_h (cont h_prev). cont 0 begins a new sequence.
    """

    def __init__(self, backend: CudaBackend, x: SyncedArray, top: SyncedArray) -> None:
        self._backend = backend
        self._kernels = backend.kernels("recurrent.cu")
        self._drive = Drive(backend, x)
        self._units = top.shape[2]
        self._step = n = top.shape[1] * self._units  # values of h in one time step
        self._activated = backend.empty(4 * top.size)  # (T, N, 4 D)
        self._c = backend.empty(top.size + n)  # (T + 1, N, D), the start first
        self._h_in = backend.empty(top.size)  # (T, N, D), cont h_prev
        self._gates_diff = backend.empty(4 * top.size)
        self._h_diff = backend.empty(n)
        self._c_diff = backend.empty(n)
        self.implementation = "cuda gemm"

    def _at(self, buffer: Buffer, t: int, times: int = 1) -> Buffer:
        """Time step t of a buffer of `times` D values a stream."""
        size = self._step * times
        return buffer[t * size : (t + 1) * size]

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
        backend, n, width = self._backend, self._step, self._units
        streams = self._drive.streams
        self._drive.forward(x, static, w_x, bias, w_static, self._activated)
        backend.copy(read(start[1]), self._at(self._c, 0))
        h_prev: Access = read(start[0])
        for t in range(self._drive.steps):
            going_on = read(cont, t * streams)
            h_in, gates = self._at(self._h_in, t), self._at(self._activated, t, 4)
            self._kernels.each("scale_streams", n, h_prev, going_on, h_in, width)
            product = Product(streams, 4 * width, width, transpose_b=True, beta=1.0)
            backend.gemm(product, h_in, read(w_h), gates)
            sides = self._at(self._c, t), gates, going_on, gates, self._at(self._c, t + 1)
            self._kernels.each("lstm_forward", n, *sides, write(top, t * n), width)
            h_prev = read(top, t * n)
        backend.copy(h_prev.buffer()[:n], write(end[0]))
        backend.copy(self._at(self._c, self._drive.steps), write(end[1]))

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
        backend, n, width, steps = self._backend, self._step, self._units, self._drive.steps
        streams = self._drive.streams
        for t in range(steps - 1, -1, -1):
            going_on = read(cont, t * streams)
            last = t == steps - 1
            gates_diff = self._at(self._gates_diff, t, 4)
            self._kernels.each(
                "lstm_backward",
                n,
                self._at(self._c, t),
                self._at(self._activated, t, 4),
                going_on,
                self._at(self._c, t + 1),
                None if last else self._c_diff,
                read(top_diff, t * n),
                None if last else self._h_diff,
                gates_diff,
                self._c_diff,
                width,
            )
            backend.gemm(Product(streams, width, 4 * width), gates_diff, read(w_h), self._h_diff)
            self._kernels.each("scale_streams", n, self._h_diff, going_on, self._h_diff, width)
        if w_h_diff is not None:
            product = Product(4 * width, width, steps * streams, transpose_a=True, beta=1.0)
            backend.gemm(product, self._gates_diff, self._h_in, update(w_h_diff))
        diffs = x_diff, static_diff, w_x_diff, bias_diff, w_static_diff
        self._drive.backward(self._gates_diff, x, static, w_x, w_static, *diffs)
