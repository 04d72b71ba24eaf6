"""Inner product: y = x w' + b, every output a weighted sum of all inputs of an image."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import maybe, own, read, update, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.channels import ChannelSums
from dtrain.kernels.cuda.device import Product
from dtrain.kernels.cuda.form import Form


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
        self.transpose = transpose
        self.relu = relu
        self._m, self._k = bottom.shape
        self._n = top.shape[1]
        self._form = Form(backend.values)  # inputs are in Caffe's order, as the weights are
        kind = own(bottom).form.type
        # of the bottom's diff: a product's output is of its inputs' type, or of the type that is computed in
        self._bottom_form = Form(kind) if kind is backend.card.real else self._form
        own(top).offer(self._form)
        self._sums = ChannelSums(backend, self._m, self._n, 1, self._form)
        self.implementation = "cuda gemm"

    def forward(
        self, bottom: SyncedArray, weights: SyncedArray, bias: SyncedArray | None, top: SyncedArray
    ) -> None:
        x, w, y = read(bottom, form=self._form), read(weights, form=self._form), write(top, form=self._form)
        product = self._product(self._m, self._n, self._k, self._form, transpose_b=not self.transpose)
        self._backend.gemm(replace(product, relu=self.relu), x, w, y, maybe(read, bias, self._form))

    def _product(
        self,
        m: int,
        n: int,
        k: int,
        output: Form,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        beta: float = 0.0,
    ) -> Product:
        inputs = self._form.type
        return Product(m, n, k, transpose_a, transpose_b, beta=beta, inputs=inputs, output=output.type)

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
        dy, x, w = (read(array, form=self._form) for array in (top_diff, bottom, weights))
        if weights_diff is not None and m:
            rows, columns, a, b = (k, n, x, dy) if self.transpose else (n, k, dy, x)
            # What is clear need neither be zeroed nor read.
            dw, beta = (write(weights_diff), 0.0) if weights_diff.is_clear else (update(weights_diff), 1.0)
            product = self._product(
                rows, columns, m, Form(self._backend.card.real), transpose_a=True, beta=beta
            )
            self._backend.gemm(product, a, b, dw)
        if bias_diff is not None:
            self._sums.run("channel_sum", update(bias_diff), 1.0, dy)
        if bottom_diff is not None:
            product = self._product(m, k, n, self._bottom_form, transpose_b=self.transpose)
            self._backend.gemm(product, dy, w, write(bottom_diff, form=self._bottom_form))
