"""Product of arrays: y = x0 x1 ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import best, own, read, write
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
        self._form = own(top).offer(best([own(bottom).form for bottom in bottoms]))
        self._kernels = backend.kernels("eltwise.cu", self._form.type)
        self.stable = stable
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        first, second, *others = bottoms
        self._multiply(first, second, top)
        for other in others:
            self._multiply(other, top, top)

    def _multiply(self, a: SyncedArray, b: SyncedArray, result: SyncedArray) -> None:
        sides = read(a, form=self._form), read(b, form=self._form), write(result, form=self._form)
        self._kernels.packed("multiply", result.size, *sides)

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
                given = (read(array, form=self._form) for array in (top_diff, top, bottoms[i]))
                self._kernels.packed("product_backward", top.size, *given, write(dx, form=self._form))
                continue
            first, *others = (bottom for j, bottom in enumerate(bottoms) if j != i)
            self._multiply(top_diff, first, dx)
            for other in others:
                self._multiply(other, dx, dx)
