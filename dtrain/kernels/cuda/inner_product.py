"""Inner product: y = x w' + b, every output a weighted sum of all inputs of an image."""

from __future__ import annotations

from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.device import Product


@final
class InnerProduct:
    """bottom (M, K), weights (N, K), or (K, N) with `transpose`, bias (N,) or None -> top (M, N).

    With `relu` the top is max(y, 0), for a plan that fuses the ReLU layer that follows.
    """

    def __init__(
        self,
        backend: CudaBackend,
        bottom: SyncedArray,
        weights: SyncedArray,
        bias: SyncedArray | None,
        top: SyncedArray,
        transpose: bool = False,
        relu: bool = False,
    ) -> None:
        self._backend = backend
        self._kernels = backend.kernels("channels.cu")
        self.transpose = transpose
        self.relu = relu
        self._m, self._k = bottom.shape
        self._n = top.shape[1]
        self.implementation = "cuda gemm"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        product = Product(self._m, self._n, self._k, transpose_b=not self.transpose)
        self._backend.gemm(product, read(bottom), read(weights), write(top))
        if bias is not None or self.relu:
            self._kernels.each(
                "add_bias", top.size, update(top), maybe(read, bias), self._n, 1, int(self.relu)
            )

    def backward(
        self,
        top_diff: SyncedArray,
        bottom: SyncedArray,
        weights: SyncedArray,
        bottom_diff: SyncedArray | None,
        weights_diff: SyncedArray | None,
        bias_diff: SyncedArray | None,
    ) -> None:
        """Overwrites `bottom_diff`, adds to the others; None is not computed."""
        m, n, k = self._m, self._n, self._k
        if weights_diff is not None:
            if self.transpose:
                product, sides = Product(k, n, m, transpose_a=True, beta=1.0), (bottom, top_diff)
            else:
                product, sides = Product(n, k, m, transpose_a=True, beta=1.0), (top_diff, bottom)
            self._backend.gemm(product, read(sides[0]), read(sides[1]), update(weights_diff))
        if bias_diff is not None:
            self._backend.sum_columns(m, n, read(top_diff), update(bias_diff))
        if bottom_diff is not None:
            product = Product(m, k, n, transpose_b=self.transpose)
            self._backend.gemm(product, read(top_diff), read(weights), write(bottom_diff))
