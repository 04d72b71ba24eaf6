"""A layer of simple recurrent units over T time steps of N streams. Source: Caffe's RNNLayer."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer, Product
from dtrain.kernels.cuda.recurrence import Drive


@final
class RNN:
    """x (T, N, ...), cont (T, N), static (N, ...) or None, start h (1, N, D) -> top (T, N, D), end h.

    h = tanh(w_x x + bias + w_static static + w_h (cont h_prev)), top = tanh(w_out h + bias_out).
    """

    def __init__(self, backend: CudaBackend, x: SyncedArray, top: SyncedArray) -> None:
        self._backend = backend
        self._kernels = backend.kernels("recurrent.cu")
        self._drive = Drive(backend, x)
        self._units: int = 0  # D, from the weights
        self._outputs = top.shape[2]
        self._h: Buffer | None = None  # (T, N, D)
        self._h_in: Buffer | None = None  # (T, N, D), cont h_prev
        self._diff: Buffer | None = None
        self._h_diff: Buffer | None = None
        self._y = backend.empty(top.size)  # for the layer behind may overwrite the top
        self._out_diff = backend.empty(top.size)
        self.implementation = "cuda gemm"

    def _allocate(self, units: int) -> tuple[Buffer, Buffer, Buffer, Buffer]:
        if self._h is None or self._units != units:
            step = self._drive.streams * units
            count = self._drive.steps * step
            self._units = units
            self._h, self._h_in, self._diff, self._h_diff = (
                self._backend.empty(size) for size in (count, count, count, step)
            )
        return self._h, self._h_in, self._diff, self._h_diff

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
        backend, width = self._backend, bias.size
        h, h_in, _, _ = self._allocate(width)
        steps, streams = self._drive.steps, self._drive.streams
        n = streams * width
        self._drive.forward(x, static, w_x, bias, w_static, h)
        h_prev: Access | Buffer = read(start)
        for t in range(steps):
            now, into = h[t * n : (t + 1) * n], h_in[t * n : (t + 1) * n]
            self._kernels.each("scale_streams", n, h_prev, read(cont, t * streams), into, width)
            backend.gemm(Product(streams, width, width, transpose_b=True, beta=1.0), into, read(w_h), now)
            self._kernels.each("tanh_in_place", n, now)
            h_prev = now
        backend.copy(h_prev, write(end))
        product = Product(steps * streams, self._outputs, width, transpose_b=True)
        backend.gemm(product, h, read(w_out), self._y)
        bias_sizes = read(bias_out), self._outputs, 1, 0
        backend.kernels("channels.cu").each("add_bias", self._y.size, self._y, *bias_sizes)
        self._kernels.each("tanh_in_place", self._y.size, self._y)
        backend.copy(self._y, write(top))

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
        backend, width, outputs = self._backend, self._units, self._outputs
        h, h_in, diff, h_diff = self._allocate(width)
        steps, streams = self._drive.steps, self._drive.streams
        n, rows = streams * width, steps * streams
        sides = read(top_diff), None, self._y, self._out_diff
        self._kernels.each("tanh_slope", self._y.size, *sides)
        if w_out_diff is not None:
            product = Product(outputs, width, rows, transpose_a=True, beta=1.0)
            backend.gemm(product, self._out_diff, h, update(w_out_diff))
        if bias_out_diff is not None:
            backend.sum_columns(rows, outputs, self._out_diff, update(bias_out_diff))
        backend.gemm(Product(rows, width, outputs), self._out_diff, read(w_out), diff)
        for t in range(steps - 1, -1, -1):
            now = diff[t * n : (t + 1) * n]
            more = None if t == steps - 1 else h_diff
            self._kernels.each("tanh_slope", n, now, more, h[t * n : (t + 1) * n], now)
            backend.gemm(Product(streams, width, width), now, read(w_h), h_diff)
            self._kernels.each("scale_streams", n, h_diff, read(cont, t * streams), h_diff, width)
        if w_h_diff is not None:
            product = Product(width, width, rows, transpose_a=True, beta=1.0)
            backend.gemm(product, diff, h_in, update(w_h_diff))
        diffs = x_diff, static_diff, w_x_diff, bias_diff, w_static_diff
        self._drive.backward(diff, x, static, w_x, w_static, *diffs)
