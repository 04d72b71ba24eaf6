"""What follows a matrix product, where the library that computes it does not do so: bias and ReLU."""

from __future__ import annotations

from typing import final

import numpy as np

from dtrain.kernels.cuda.device import Buffer, Device, Product
from dtrain.kernels.cuda.form import TYPE_OF, ValueType
from dtrain.kernels.cuda.launch import Kernels


@final
class Epilog:
    """By a kernel, on C as the product has left it."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._kernels: dict[ValueType, Kernels] = {}

    def run(self, product: Product, c: Buffer, bias: Buffer | None) -> None:
        """C += bias; then C <- max(C, 0) if the product says so."""
        output = product.output or TYPE_OF[c.dtype]
        kernels = self._kernels.get(output)
        if kernels is None:
            real = np.dtype(np.float64 if output is ValueType.FLOAT64 else np.float32)
            kernels = self._kernels[output] = Kernels(self._device, "epilog.cu", real, output)
        for matrix in _matrices(product, c):
            kernels.each("bias_relu", matrix.size, matrix, bias, product.n, int(product.relu))

    def instead(self, product: Product, c: Buffer, bias: Buffer | None) -> None:
        """The whole product, where it sums nothing: k is 0."""
        assert product.beta in (0, 1), "a sum of nothing is left as it is, or overwritten"
        if not product.beta:
            for matrix in _matrices(product, c):
                self._device.clear(matrix)
        if bias is not None or product.relu:
            self.run(product, c, bias)


def _matrices(product: Product, c: Buffer) -> list[Buffer]:
    """C, or its parts where a batch's do not follow each other."""
    p = product
    if p.batch == 1 or p.stride_c == p.m * p.n:
        return [c[: p.batch * p.m * p.n]]
    return [c[i * p.stride_c : i * p.stride_c + p.m * p.n] for i in range(p.batch)]
