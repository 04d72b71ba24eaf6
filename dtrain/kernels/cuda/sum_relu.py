"""Weighted sum of arrays and the rectified linear unit behind it: y = max(c0 x0 + c1 x1 + ..., 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import best, maybe, own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.sum import add_up


@final
class SumReLU:
    """Any number of bottoms of one shape -> top; the top may be the first bottom.

    For a plan that fuses the in-place ReLU layer that follows a sum.
    """

    def __init__(
        self,
        backend: CudaBackend,
        coefficients: Sequence[float],
        bottoms: Sequence[SyncedArray],
        top: SyncedArray,
    ) -> None:
        self._backend = backend
        self.coefficients = [float(c) for c in coefficients]
        self._form = own(top).offer(best([own(bottom).form for bottom in bottoms]))
        self._kernels = backend.kernels("eltwise.cu", self._form.type)
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        add_up(self._backend, self._form, self.coefficients, bottoms, top, relu=True)

    def backward(
        self, top_diff: SyncedArray, top: SyncedArray, bottom_diffs: Sequence[SyncedArray | None]
    ) -> None:
        """`top` after forward; None is not computed; the first bottom's diff may be `top_diff`."""
        wanted = [(dx, c) for dx, c in zip(bottom_diffs, self.coefficients, strict=True) if dx is not None]
        sides = read(top_diff, form=self._form), read(top, form=self._form)
        while wanted:  # two in a pass; one that is the top's diff comes last
            second, c1 = wanted.pop()
            first, c0 = wanted.pop() if wanted else (second, c1)
            other = None if first is second else second
            self._kernels.packed(
                "rectified_sum_backward",
                top_diff.size,
                *sides,
                write(first, form=self._form),
                maybe(write, other, self._form),
                c0,
                c1,
            )
