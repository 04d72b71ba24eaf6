"""Product of arrays: y = x0 x1 ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import read, write
from dtrain.kernels.cuda.backend import CudaBackend


@final
class Product:
    """Two or more bottoms of one shape -> top.

    With `stable` the gradient of a bottom is the product of the others, otherwise y / x, which is not a
    number where x is 0. Source: Caffe's EltwiseLayer.
    """

    def __init__(
        self, backend: CudaBackend, stable: bool, bottoms: Sequence[SyncedArray], top: SyncedArray
    ) -> None:
        self._kernels = backend.kernels("eltwise.cu")
        self.stable = stable
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, second, *others = bottoms
        self._kernels.each("multiply", top.size, read(first), read(second), write(top))
        for other in others:
            self._kernels.each("multiply", top.size, read(other), read(top), write(top))

    def backward(
        self,
        top_diff: SyncedArray,
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """None is not computed."""
        for i, dx in enumerate(bottom_diffs):
            if dx is None:
                continue
            if not self.stable:
                args = read(top_diff), read(top), read(bottoms[i]), write(dx)
                self._kernels.each("product_backward", top.size, *args)
                continue
            first, *others = (bottom for j, bottom in enumerate(bottoms) if j != i)
            self._kernels.each("multiply", top.size, read(top_diff), read(first), write(dx))
            for other in others:
                self._kernels.each("multiply", top.size, read(other), read(dx), write(dx))
