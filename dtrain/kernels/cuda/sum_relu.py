"""Weighted sum of arrays and the rectified linear unit behind it: y = max(c0 x0 + c1 x1 + ..., 0)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, best, maybe, own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.sum import AT_ONCE, add_up


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
        self,
        top_diffs: Sequence[SyncedArray],
        top: SyncedArray,
        bottom_diffs: Sequence[SyncedArray | None],
    ) -> None:
        """`top` after forward; its diff is the sum of `top_diffs`, which are several where a Split follows.

        None is not computed; the first bottom's diff may be the first of `top_diffs`.
        """
        wanted = [(dx, c) for dx, c in zip(bottom_diffs, self.coefficients, strict=True) if dx is not None]
        wanted.reverse()  # a top's diff that is a bottom's comes last
        if wanted and len(top_diffs) > AT_ONCE:
            total = wanted[-1][0]
            add_up(self._backend, self._form, [1.0] * len(top_diffs), top_diffs, total)
            top_diffs = [total]
        given: list[Access | None] = [read(diff, form=self._form) for diff in top_diffs]
        sides = *given, *[None] * (AT_ONCE - len(given)), read(top, form=self._form)
        for i in range(0, len(wanted), 2):
            first, c0 = wanted[i]
            second, c1 = wanted[i + 1] if i + 1 < len(wanted) else (None, 0.0)
            results = write(first, form=self._form), maybe(write, second, self._form)
            self._kernels.packed(
                "rectified_sum_backward", top.size, np.int32(len(given)), *sides, *results, c0, c1
            )
