"""Weighted sum of arrays: y = c0 x0 + c1 x1 + ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

import numpy as np

from dtrain.kernels.array import SyncedArray
from dtrain.kernels.cuda.array import Access, best, own, read, write
from dtrain.kernels.cuda.backend import CudaBackend
from dtrain.kernels.cuda.form import Form

AT_ONCE: Final = 4  # as many arrays as weighted_sum_of takes


@final
class Sum:
    """Any number of bottoms of one shape -> top; the top may be the first bottom.

    The top takes its form at once, since consumers of data are built on it. Diffs get theirs from the
    consumers' backward passes, so forms are looked at again in each pass.
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
        own(top).offer(best([own(bottom).form for bottom in bottoms]))
        self.implementation = "cuda"

    def forward(self, bottoms: Sequence[SyncedArray], top: SyncedArray) -> None:
        form = best([*(own(bottom).held for bottom in bottoms), own(top).form])
        add_up(self._backend, form, self.coefficients, bottoms, top)


def add_up(
    backend: CudaBackend,
    form: Form,
    coefficients: Sequence[float],
    bottoms: Sequence[SyncedArray],
    top: SyncedArray,
    *,
    relu: bool = False,
) -> None:
    """The weighted sum, and with `relu` the maximum of it and 0; each pass adds AT_ONCE arrays."""
    parts = [(read(bottom, form=form), c) for bottom, c in zip(bottoms, coefficients, strict=True)]
    while parts:
        now, parts = parts[:AT_ONCE], parts[AT_ONCE:]
        arrays: list[Access | None] = [array for array, _ in now]
        factors = [c for _, c in now]
        rest = AT_ONCE - len(now)
        backend.kernels("eltwise.cu", form.type).packed(
            "weighted_sum_of",
            top.size,
            np.int32(len(now)),
            *arrays,
            *[None] * rest,
            write(top, form=form),
            *factors,
            *[0.0] * rest,
            np.int32(relu and not parts),
        )
        if parts:
            parts.insert(0, (read(top, form=form), 1.0))
