"""What recurrent operators share: the part of every time step that does not depend on the step before."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Buffer, Product


@final
class Drive:
    """x (T, N, ...) -> (T, N, G): x w_x' + bias, and static w_static' at every step."""

    def __init__(self, backend: CudaBackend, x: SyncedArray) -> None:
        self._backend = backend
        self.steps, self.streams = x.shape[:2]
        self._rows = self.steps * self.streams
        self._inputs = x.size // max(self._rows, 1)

    def forward(
        self,
        x: SyncedArray,
        static: SyncedArray | None,
        w_x: SyncedArray,
        bias: SyncedArray,
        w_static: SyncedArray | None,
        driven: Buffer,
    ) -> None:
        """Overwrites `driven`."""
        backend, outputs = self._backend, bias.size
        product = Product(self._rows, outputs, self._inputs, transpose_b=True)
        backend.gemm(product, read(x), read(w_x), driven)
        backend.kernels("channels.cu").each("add_bias", driven.size, driven, read(bias), outputs, 1, 0)
        if static is not None and w_static is not None:
            inputs = static.size // self.streams
            same = backend.workspace(self.streams * outputs)
            product = Product(self.streams, outputs, inputs, transpose_b=True)
            backend.gemm(product, read(static), read(w_static), same)
            backend.kernels("copies.cu").each("add_repeated", driven.size, same, driven, same.size)

    def backward(
        self,
        diff: Buffer,
        x: SyncedArray,
        static: SyncedArray | None,
        w_x: SyncedArray,
        w_static: SyncedArray | None,
        x_diff: SyncedArray | None,
        static_diff: SyncedArray | None,
        w_x_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
        w_static_diff: SyncedArray | None,
    ) -> None:
        """The gradient for diff (T, N, G): overwrites x_diff and static_diff, adds to the others."""
        backend = self._backend
        outputs = diff.size // max(self._rows, 1)
        if x_diff is not None:
            backend.gemm(Product(self._rows, self._inputs, outputs), diff, read(w_x), write(x_diff))
        if w_x_diff is not None:
            product = Product(outputs, self._inputs, self._rows, transpose_a=True, beta=1.0)
            backend.gemm(product, diff, read(x), update(w_x_diff))
        if bias_diff is not None:
            backend.sum_columns(self._rows, outputs, diff, update(bias_diff))
        if static is None or w_static is None or (static_diff is None and w_static_diff is None):
            return
        inputs = static.size // self.streams
        over_time = backend.workspace(self.streams * outputs)
        backend.kernels("copies.cu").each(
            "sum_middle", over_time.size, diff, over_time, self.steps, over_time.size
        )
        if static_diff is not None:
            product = Product(self.streams, inputs, outputs)
            backend.gemm(product, over_time, read(w_static), write(static_diff))
        if w_static_diff is not None:
            product = Product(outputs, inputs, self.streams, transpose_a=True, beta=1.0)
            backend.gemm(product, over_time, read(static), update(w_static_diff))
